from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from server.engines.engine import NUMPY_DTYPES
from server.errors import InvalidArgument
from server.wire.request_fields import MAX_TENSORS
from server.wire.request_header import MAX_PARAMETERS, make_header
from server.wire.tensors import RegionSlice


def request(datatype: str = "FP32", shape: tuple[int, ...] = (1, 2)) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="cnn")
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    return message


def test_reads_parameters_and_regions() -> None:
    message = request()
    message.parameters["priority"].uint64_param = 2
    message.parameters["timeout"].int64_param = 1500
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    message.inputs[0].parameters["shared_memory_offset"].int64_param = 16
    output = message.outputs.add(name="y")
    output.parameters["classification"].int64_param = 3
    header = make_header(message)
    assert (header.priority, header.timeout_us, header.empty_final_response) == (2, 1500, True)
    assert header.inputs[0].region == RegionSlice("r", 16, 8)
    assert header.outputs[0].classification == 3


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, -2.0]),
    "FP64": ("fp64_contents", [1e300, -2.0]),
}


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_become_arrays_of_the_datatype(datatype: str) -> None:
    field, values = TYPED[datatype]
    message = request(datatype)
    getattr(message.inputs[0].contents, field).extend(values)
    typed = make_header(message).inputs[0].typed
    assert isinstance(typed, np.ndarray)
    assert typed.dtype == NUMPY_DTYPES[datatype]
    assert typed.tolist() == values


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("UINT8", "uint_contents", 256), ("INT8", "int_contents", -129), ("INT16", "int_contents", 40000)],
)
def test_typed_integers_out_of_range_are_refused(datatype: str, field: str, value: int) -> None:
    message = request(datatype)
    getattr(message.inputs[0].contents, field).extend([value, 0])
    with pytest.raises(InvalidArgument, match=f"{datatype} takes .* got values"):
        make_header(message)


def set_integer(name: str, value: int) -> Callable[[pb.ModelInferRequest], None]:
    def change(message: pb.ModelInferRequest) -> None:
        message.parameters[name].int64_param = value

    return change


def add_tensors(message: pb.ModelInferRequest) -> None:
    for index in range(MAX_TENSORS):
        message.inputs.add(name=f"x{index}", datatype="FP32", shape=[1])


def add_outputs(message: pb.ModelInferRequest) -> None:
    for index in range(MAX_TENSORS + 1):
        message.outputs.add(name=f"y{index}")


def add_parameters(message: pb.ModelInferRequest) -> None:
    for index in range(MAX_PARAMETERS + 1):
        message.inputs[0].parameters[f"p{index}"].bool_param = True


def repeat_input(message: pb.ModelInferRequest) -> None:
    message.inputs.append(message.inputs[0])


def repeat_output(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="y")
    message.outputs.add(name="y")


def string_priority(message: pb.ModelInferRequest) -> None:
    message.parameters["priority"].string_param = "high"


def region_and_contents(message: pb.ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    message.inputs[0].contents.fp32_contents.append(1)


def region_without_size(message: pb.ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"


def size_without_region(message: pb.ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8


def wrong_contents(message: pb.ModelInferRequest) -> None:
    message.inputs[0].contents.int_contents.append(1)


def reshape(*shape: int) -> Callable[[pb.ModelInferRequest], None]:
    def change(message: pb.ModelInferRequest) -> None:
        del message.inputs[0].shape[:]
        message.inputs[0].shape.extend(shape)

    return change


def retype(datatype: str) -> Callable[[pb.ModelInferRequest], None]:
    def change(message: pb.ModelInferRequest) -> None:
        message.inputs[0].datatype = datatype

    return change


def typed_half(message: pb.ModelInferRequest) -> None:
    message.inputs[0].datatype = "FP16"
    message.inputs[0].contents.fp32_contents.append(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_integer("priority", -1), "'priority' must be 0 to"),
        (set_integer("timeout", -5), "'timeout' must be 0 to"),
        (set_integer("triton_own", 1), "reserved"),
        (string_priority, "'priority' must be an integer, got string_param"),
        (add_tensors, f"may have {MAX_TENSORS} inputs, got {MAX_TENSORS + 1}"),
        (add_outputs, f"may have {MAX_TENSORS} outputs, got {MAX_TENSORS + 1}"),
        (add_parameters, f"may have {MAX_PARAMETERS} parameters"),
        (repeat_input, "'x' is given more than once"),
        (repeat_output, "'y' is given more than once"),
        (region_and_contents, "lies in shared memory and has typed contents"),
        (region_without_size, "needs a positive 'shared_memory_byte_size'"),
        (size_without_region, "needs 'shared_memory_region' beside it"),
        (wrong_contents, "takes fp32_contents, got int_contents"),
        (reshape(1, 0), r"at least 1, got \[1,0\]"),
        (reshape(1, -3), r"at least 1, got \[1,-3\]"),
        (reshape(2**32, 2**31), "fewer than 2\\^63"),
        (reshape(*[1] * 33), "32 dimensions, got 33"),
        (retype("FP8"), "datatype 'FP8'; expected one of"),
        (typed_half, "raw contents only"),
    ],
)
def test_refuses_and_says_why(change: Callable[[pb.ModelInferRequest], None], message: str) -> None:
    broken = request()
    make_header(broken)
    change(broken)
    with pytest.raises(InvalidArgument, match=message):
        make_header(broken)
