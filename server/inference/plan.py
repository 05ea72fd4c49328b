"""What a request's header means for one model: all checking that needs no pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from protos import grpc_service_pb2 as pb
from server.engines.engine import TensorSpec
from server.errors import InvalidArgument
from server.models.spec import ModelSpec
from server.wire.response_encoder import ResponseHead, response_head
from server.wire.tensors import InputHeader, OutputHeader, RegionSlice, RequestHeader


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How one input of the network is filled.

    Args:
        spec: the network's input.
        source: the request's tensor.
        raw_index: which raw content holds it; None when it is typed or in shared memory.
        shape: the array's shape, batch dimension included.
        nbytes: the array's size.
        encoded: whether the tensor holds encoded images, to be decoded into the array.
    """

    spec: TensorSpec
    source: InputHeader
    raw_index: int | None
    shape: tuple[int, ...]
    nbytes: int
    encoded: bool


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """How one requested output is answered.

    Args:
        index: the output's position in the network.
        datatype: the protocol's type as answered (BYTES when classified).
        shape: the shape as answered.
        nbytes: its size; 0 when it is classified, because strings vary.
        classes: how many classes to name for each image; 0: the tensor itself.
        region: where in shared memory to write it; None: into the response.
    """

    index: int
    name: str
    datatype: str
    shape: tuple[int, ...]
    nbytes: int
    classes: int
    region: RegionSlice | None


@dataclass(frozen=True, slots=True)
class InferPlan:
    """Everything about a request that its header decides.

    Args:
        inputs: in the network's order.
        outputs: in the order of the answer.
        images: how many images the request carries.
        nbytes: size of all input arrays.
        priority: 0 is the default level, lower numbers are more urgent.
        timeout_s: the request's own time limit; None when it has none.
        head: the part of the response that does not depend on the pixels.
        stream_head: the same for a stream, where a client may ask to be told that the answer is its last.
        encoded: whether any input holds encoded images.
        placed: whether any output goes to shared memory.
    """

    inputs: tuple[InputPlan, ...]
    outputs: tuple[OutputPlan, ...]
    images: int
    nbytes: int
    priority: int
    timeout_s: float | None
    head: ResponseHead
    stream_head: ResponseHead
    encoded: bool
    placed: bool


def make_plan(spec: ModelSpec, header: RequestHeader) -> InferPlan:
    """Check a header against a model. Raises `InvalidArgument`, saying what was expected and what came."""
    sources = _sources(spec, header.inputs)
    images = _images(spec, sources)
    inputs = tuple(_input_plan(spec, header, tensor, source, images) for tensor, source in sources)
    outputs = tuple(_output_plan(spec, wanted, images) for wanted in _wanted(spec, header))
    return InferPlan(
        inputs=inputs,
        outputs=outputs,
        images=images,
        nbytes=sum(tensor.nbytes for tensor in inputs),
        priority=header.priority,
        timeout_s=header.timeout_us / 1e6 if header.timeout_us else None,
        head=_head(spec, outputs),
        stream_head=_head(spec, outputs, final=header.empty_final_response),
        encoded=any(tensor.encoded for tensor in inputs),
        placed=any(output.region is not None for output in outputs),
    )


def _head(spec: ModelSpec, outputs: Sequence[OutputPlan], *, final: bool = False) -> ResponseHead:
    response = pb.ModelInferResponse(model_name=spec.name, model_version=str(spec.version))
    for output in outputs:
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if output.region is not None:
            tensor.parameters["shared_memory_region"].string_param = output.region.region
            tensor.parameters["shared_memory_byte_size"].int64_param = output.region.byte_size
            tensor.parameters["shared_memory_offset"].int64_param = output.region.offset
    if final:
        response.parameters["triton_final_response"].bool_param = True
    return response_head(response)


def _sources(spec: ModelSpec, given: Sequence[InputHeader]) -> list[tuple[TensorSpec, InputHeader]]:
    """Pair the network's inputs with the request's, which may come in any order."""
    by_name = {tensor.name: tensor for tensor in given}
    expected = [tensor.name for tensor in spec.inputs]
    if set(by_name) != set(expected) or len(given) != len(expected):
        got = _names([tensor.name for tensor in given])
        raise InvalidArgument(f"model '{spec.name}' expects the inputs {_names(expected)}, got {got}")
    return [(tensor, by_name[tensor.name]) for tensor in spec.inputs]


def _images(spec: ModelSpec, sources: Sequence[tuple[TensorSpec, InputHeader]]) -> int:
    if spec.max_batch == 0:
        return 1
    sizes = {source.shape[0] if source.shape else 1 for _, source in sources}
    if len(sizes) > 1:
        shapes = ", ".join(f"'{source.name}' {_text(source.shape)}" for _, source in sources)
        raise InvalidArgument(f"the first dimension is the batch and must agree across inputs, got {shapes}")
    images = sizes.pop() if sizes else 1
    if images > spec.max_batch:
        raise InvalidArgument(
            f"inference request batch-size must be <= {spec.max_batch} for '{spec.name}', got {images}"
        )
    return images


def _input_plan(
    spec: ModelSpec, header: RequestHeader, tensor: TensorSpec, source: InputHeader, images: int
) -> InputPlan:
    encoded = _is_encoded(spec, tensor, source)
    if not encoded:
        _check_tensor(spec, tensor, source)
    return InputPlan(
        spec=tensor,
        source=source,
        raw_index=_raw_index(header, source),
        shape=(images, *tensor.shape) if spec.max_batch else tensor.shape,
        nbytes=images * tensor.item_bytes,
        encoded=encoded,
    )


def _is_encoded(spec: ModelSpec, tensor: TensorSpec, source: InputHeader) -> bool:
    """Whether the tensor holds one encoded image per BYTES element; checks its shape if so."""
    if source.datatype != "BYTES" or spec.image is None or spec.image.input_name != tensor.name:
        return False
    count = source.shape[0] if spec.max_batch and source.shape else 1
    if source.shape not in ((count,), (count, 1)):
        expected = "[n] or [n,1]" if spec.max_batch else "[1]"
        raise InvalidArgument(
            f"encoded images for input '{tensor.name}' of model '{spec.name}' must have the shape "
            f"{expected}, one image per element, got {_text(source.shape)}"
        )
    return True


def _check_tensor(spec: ModelSpec, tensor: TensorSpec, source: InputHeader) -> None:
    where = f"input '{tensor.name}' of model '{spec.name}'"
    if source.datatype != tensor.datatype:
        raise InvalidArgument(f"{where} expects datatype {_accepted(spec, tensor)}, got {source.datatype}")
    item = source.shape[1:] if spec.max_batch else source.shape
    if item != tensor.shape or len(source.shape) != len(spec.wire_shape(tensor)):
        expected = _text(spec.wire_shape(tensor))
        raise InvalidArgument(f"{where} expects shape {expected}, got {_text(source.shape)}")


def _accepted(spec: ModelSpec, tensor: TensorSpec) -> str:
    encoded = spec.image is not None and spec.image.input_name == tensor.name
    return f"{tensor.datatype} (or BYTES: JPEG or PNG)" if encoded else tensor.datatype


def _raw_index(header: RequestHeader, source: InputHeader) -> int | None:
    """Raw contents skip the inputs that lie in shared memory."""
    if source.region is not None or source.typed is not None:
        return None
    in_raw = [tensor.name for tensor in header.inputs if tensor.region is None]
    return in_raw.index(source.name)


def _wanted(spec: ModelSpec, header: RequestHeader) -> tuple[OutputHeader, ...]:
    if header.outputs:
        return header.outputs
    return tuple(OutputHeader(name=tensor.name, classification=0, region=None) for tensor in spec.outputs)


def _output_plan(spec: ModelSpec, wanted: OutputHeader, images: int) -> OutputPlan:
    names = [tensor.name for tensor in spec.outputs]
    if wanted.name not in names:
        raise InvalidArgument(f"model '{spec.name}' has the outputs {_names(names)}, got '{wanted.name}'")
    index = names.index(wanted.name)
    plan = _classes_plan if wanted.classification else _tensor_plan
    return plan(spec, wanted, index, images)


def _tensor_plan(spec: ModelSpec, wanted: OutputHeader, index: int, images: int) -> OutputPlan:
    tensor = spec.outputs[index]
    nbytes = images * tensor.item_bytes
    if wanted.region is not None and wanted.region.byte_size < nbytes:
        raise InvalidArgument(
            f"output '{tensor.name}' of model '{spec.name}' needs {nbytes} bytes of shared memory, "
            f"got shared_memory_byte_size {wanted.region.byte_size}"
        )
    shape = (images, *tensor.shape) if spec.max_batch else tensor.shape
    return OutputPlan(index, tensor.name, tensor.datatype, shape, nbytes, 0, wanted.region)


def _classes_plan(spec: ModelSpec, wanted: OutputHeader, index: int, images: int) -> OutputPlan:
    tensor = spec.outputs[index]
    if tensor.datatype == "BOOL":
        raise InvalidArgument(
            f"output '{tensor.name}' of model '{spec.name}' is BOOL and cannot be classified"
        )
    classes = min(wanted.classification, math.prod(tensor.shape))
    shape = (images, classes) if spec.max_batch else (classes,)
    return OutputPlan(index, tensor.name, "BYTES", shape, 0, classes, wanted.region)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:8])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown or "none"


def _text(shape: Sequence[int]) -> str:
    return "[" + ",".join(str(dimension) for dimension in shape) + "]"
