"""Everything about a request but its pixels, checked as far as the protocol alone allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from protos import grpc_service_pb2 as pb
from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import InvalidArgument
from server.wire.request_fields import MAX_TENSORS
from server.wire.tensors import (
    InputHeader,
    OutputHeader,
    RegionSlice,
    RequestHeader,
    check_shape,
    typed_array,
)

MAX_PARAMETERS = 256
MAX_DIMENSIONS = 32

_RAW_ONLY = ("FP16", "BF16")
_DATATYPES = (*NUMPY_DTYPES, "BF16", "BYTES")
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_EMPTY_FINAL = "triton_enable_empty_final_response"
_REGION, _REGION_SIZE, _REGION_OFFSET = (
    "shared_memory_region",
    "shared_memory_byte_size",
    "shared_memory_offset",
)

Header = TypeVar("Header", InputHeader, OutputHeader)
Parameters = Mapping[str, pb.InferParameter]


def make_header(request: pb.ModelInferRequest) -> RequestHeader:
    """Check and freeze a request's header. Raises `InvalidArgument`."""
    _check_counts(request)
    parameters = request.parameters
    _check_reserved(parameters)
    return RequestHeader(
        model_name=request.model_name,
        model_version=request.model_version,
        inputs=_distinct("input", [_input(tensor) for tensor in request.inputs]),
        outputs=_distinct("output", [_output(tensor) for tensor in request.outputs]),
        priority=_integer(parameters, "priority", 0),
        timeout_us=_integer(parameters, "timeout", 0),
        empty_final_response=_EMPTY_FINAL in parameters and _boolean(parameters, _EMPTY_FINAL),
    )


def _check_counts(request: pb.ModelInferRequest) -> None:
    for what, count in (("inputs", len(request.inputs)), ("outputs", len(request.outputs))):
        if count > MAX_TENSORS:
            raise InvalidArgument(f"a request may have {MAX_TENSORS} {what}, got {count}")
    count = len(request.parameters) + sum(len(tensor.parameters) for tensor in request.inputs)
    count += sum(len(tensor.parameters) for tensor in request.outputs)
    if count > MAX_PARAMETERS:
        raise InvalidArgument(f"a request may have {MAX_PARAMETERS} parameters in all, got {count}")


def _check_reserved(parameters: Parameters) -> None:
    reserved = sorted(name for name in parameters if name.startswith("triton_") and name != _EMPTY_FINAL)
    if reserved:
        raise InvalidArgument(
            f"parameters that begin with 'triton_' are reserved (only '{_EMPTY_FINAL}' may be sent), "
            f"got '{reserved[0]}'"
        )


def _input(tensor: pb.ModelInferRequest.InferInputTensor) -> InputHeader:
    if tensor.datatype not in _DATATYPES:
        allowed = ", ".join(_DATATYPES)
        raise InvalidArgument(
            f"input '{tensor.name}' has the datatype '{tensor.datatype}'; expected one of {allowed}"
        )
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise InvalidArgument(
            f"input '{tensor.name}' may have {MAX_DIMENSIONS} dimensions, got {len(tensor.shape)}"
        )
    region = _region(tensor.name, tensor.parameters)
    typed = _typed(tensor) if tensor.HasField("contents") else None
    if region is not None and typed is not None:
        raise InvalidArgument(f"input '{tensor.name}' lies in shared memory and has typed contents: send one")
    return InputHeader(tensor.name, tensor.datatype, check_shape(tensor.name, tensor.shape), region, typed)


def _output(tensor: pb.ModelInferRequest.InferRequestedOutputTensor) -> OutputHeader:
    classes = _integer(tensor.parameters, "classification", 0)
    return OutputHeader(tensor.name, classes, _region(tensor.name, tensor.parameters))


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> Array | tuple[bytes, ...]:
    name, datatype = tensor.name, tensor.datatype
    if datatype in _RAW_ONLY:
        raise InvalidArgument(f"input '{name}' is {datatype}, which can be sent as raw contents only")
    field = _TYPED_FIELDS[datatype]
    given = {descriptor.name for descriptor, _ in tensor.contents.ListFields()}
    if given - {field}:
        got = ", ".join(sorted(given))
        raise InvalidArgument(f"input '{name}' is {datatype} and takes {field}, got {got}")
    values = getattr(tensor.contents, field)
    if datatype == "BYTES":
        return tuple(values)
    return typed_array(name, datatype, NUMPY_DTYPES[datatype], values)


def _region(name: str, parameters: Parameters) -> RegionSlice | None:
    if _REGION not in parameters:
        _refuse_orphans(name, parameters)
        return None
    choice = parameters[_REGION]
    if choice.WhichOneof("parameter_choice") != "string_param" or not choice.string_param:
        raise InvalidArgument(f"parameter '{_REGION}' of '{name}' must be a string that names a region")
    size = _integer(parameters, _REGION_SIZE, 0)
    if size == 0:
        raise InvalidArgument(f"'{name}' lies in shared memory and needs a positive '{_REGION_SIZE}'")
    return RegionSlice(choice.string_param, _integer(parameters, _REGION_OFFSET, 0), size)


def _refuse_orphans(name: str, parameters: Parameters) -> None:
    for orphan in (_REGION_SIZE, _REGION_OFFSET):
        if orphan in parameters:
            raise InvalidArgument(f"parameter '{orphan}' of '{name}' needs '{_REGION}' beside it")


def _integer(parameters: Parameters, name: str, default: int) -> int:
    if name not in parameters:
        return default
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice not in ("int64_param", "uint64_param"):
        raise InvalidArgument(f"parameter '{name}' must be an integer, got {choice or 'nothing'}")
    value = int(getattr(parameters[name], choice))
    if not 0 <= value < 1 << 63:
        raise InvalidArgument(f"parameter '{name}' must be 0 to 2^63 - 1, got {value}")
    return value


def _boolean(parameters: Parameters, name: str) -> bool:
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice != "bool_param":
        raise InvalidArgument(f"parameter '{name}' must be a boolean, got {choice or 'nothing'}")
    return parameters[name].bool_param


def _distinct(what: str, tensors: Iterable[Header]) -> tuple[Header, ...]:
    by_name: dict[str, Header] = {}
    for tensor in tensors:
        if tensor.name in by_name:
            raise InvalidArgument(f"{what} '{tensor.name}' is given more than once")
        by_name[tensor.name] = tensor
    return tuple(by_name.values())
