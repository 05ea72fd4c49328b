"""Requests as the bytes that go over the wire, made once and sent many times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protos import grpc_service_pb2 as wire

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
_NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}


def infer_request(model: str, input_name: str, tensor: NDArray[np.generic]) -> bytes:
    """Return a ModelInferRequest with the tensor as raw contents."""
    request = _request(model, input_name, tensor)
    request.raw_input_contents.append(np.ascontiguousarray(tensor).tobytes())
    return bytes(request.SerializeToString())


def shared_memory_request(model: str, input_name: str, tensor: NDArray[np.generic], region: str) -> bytes:
    """Return a ModelInferRequest whose tensor lies in a registered region, from its first byte on."""
    request = _request(model, input_name, tensor)
    parameters = request.inputs[0].parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = tensor.nbytes
    return bytes(request.SerializeToString())


def _request(model: str, input_name: str, tensor: NDArray[np.generic]) -> wire.ModelInferRequest:
    request = wire.ModelInferRequest(model_name=model)
    request.inputs.add(name=input_name, datatype=_NAMES[tensor.dtype], shape=tensor.shape)
    return request
