"""From outputs to the bytes of a ModelInferResponse: the head is made once, the rest is one join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protos import grpc_service_pb2 as pb

_ID_TAG = bytes([3 << 3 | 2])
_RAW_TAG = bytes([6 << 3 | 2])
_STREAM_RESPONSE_TAG = bytes([2 << 3 | 2])


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response without id and raw contents, encoded: the fields before the id, and those after it."""

    before_id: bytes
    after_id: bytes


def response_head(response: pb.ModelInferResponse) -> ResponseHead:
    """Encode what does not depend on the pixels: model name, version, parameters, outputs' metadata."""
    front = pb.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
    back = pb.ModelInferResponse(outputs=response.outputs)
    for name, value in response.parameters.items():
        back.parameters[name].CopyFrom(value)
    return ResponseHead(front.SerializeToString(), back.SerializeToString())


def encode_response(head: ResponseHead, request_id: str, raw_outputs: Sequence[bytes | memoryview]) -> bytes:
    """Encode a response, copying each output once.

    Args:
        head: from `response_head`.
        request_id: echoed; empty for none.
        raw_outputs: one for each of the head's outputs, in their order; memoryviews are of bytes.
    """
    parts: list[bytes | memoryview] = [head.before_id]
    if request_id:
        encoded = request_id.encode()
        parts += (_ID_TAG, _varint(len(encoded)), encoded)
    parts.append(head.after_id)
    for raw in raw_outputs:
        parts += (_RAW_TAG, _varint(len(raw)), raw)
    return b"".join(parts)


def stream_response(response: bytes) -> bytes:
    """Wrap an encoded response for a stream."""
    return b"".join((_STREAM_RESPONSE_TAG, _varint(len(response)), response))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
