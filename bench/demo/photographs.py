"""Two photographs that scikit-image ships, as a client would send them: encoded, through gRPC."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import cast

import grpc
from PIL import Image

from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub

TOP = 3
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph as scikit-image names it, and the ImageNet class that it shows."""

    name: str
    shows: str
    class_index: int


PHOTOGRAPHS = (Photograph("chelsea", "a cat", 285), Photograph("coffee", "an espresso", 967))


@dataclass(frozen=True, slots=True)
class Guess:
    """One class with its score."""

    index: int
    label: str
    score: float


def encoded(photograph: Photograph) -> bytes:
    """Return the photograph as a PNG file's bytes."""
    import skimage.data

    buffer = io.BytesIO()
    Image.fromarray(getattr(skimage.data, photograph.name)()).save(buffer, "PNG")
    return buffer.getvalue()


def classify(url: str, model: str, png: bytes) -> list[Guess]:
    """Ask the server for the best classes, best first. Raises grpc.RpcError."""
    with grpc.insecure_channel(url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = stub.ModelMetadata(wire.ModelMetadataRequest(name=model), timeout=TIMEOUT_S)
        request = _request(model, metadata.inputs[0].name, metadata.outputs[0].name, png)
        answer = stub.ModelInfer(request, timeout=TIMEOUT_S)
    return [_guess(element) for element in _elements(answer.raw_output_contents[0])]


def _request(model: str, input_name: str, output_name: str, png: bytes) -> wire.ModelInferRequest:
    request = wire.ModelInferRequest(model_name=model)
    request.inputs.add(name=input_name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(png)) + png)
    request.outputs.add(name=output_name).parameters["classification"].int64_param = TOP
    return request


def _elements(raw: bytes) -> list[str]:
    """Split a BYTES tensor: each element is its length in four bytes, then the bytes."""
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length].decode("utf-8"))
        at += 4 + cast("int", length)
    return found


def _guess(element: str) -> Guess:
    score, index, *label = element.split(":", 2)
    return Guess(int(index), label[0] if label else "", float(score))
