"""What a front end and the core say to each other: frames on a Unix stream socket. Pure.

A frame is its length, its kind, the number of the call that it is about (0: none), and a body. Both ends are
processes of one program on one machine, so numbers are in the machine's own order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from protos import grpc_service_pb2 as pb

_HEAD = struct.Struct("=IBQ")
_LENGTH_BYTES = 4
_MESSAGE = struct.Struct("=dB")
_REFERRED = struct.Struct("=dBIH")
_SPAN = struct.Struct("=QQ")
_REFUSAL = struct.Struct("=Bd")
_NUMBER = struct.Struct("=d")

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME: str = _SERVICE.full_name
METHODS = tuple(method.name for method in _SERVICE.methods)
"""The protocol's methods; a frame names one by its place."""

NO_CALL = 0


class Kind(IntEnum):
    """What a frame is."""

    # from the front end
    READY = 1  # it listens
    FAILED = 2  # it cannot; the body says why
    MESSAGE = 3  # a request as it came
    REFERRED = 4  # a ModelInferRequest whose raw contents are in the arena
    CANCEL = 5
    SAID = 11  # its health says what SERVING told
    # from the core
    SERVING = 6  # what health is to say
    ANSWER = 7  # nobody reads the request's pixels any more
    REFUSAL = 8  # somebody may still read them
    STOP = 9
    LET_GO = 10  # now nobody does


class Frame(NamedTuple):
    """One frame."""

    kind: int
    call: int
    body: bytes


class Message(NamedTuple):
    """A request: until when on the monotonic clock, infinite for ever; to which method; its bytes."""

    deadline_s: float
    method: int
    message: bytes


class Referred(NamedTuple):
    """A request for inference: header and id as `request_fields` finds them, (offset, bytes) of the rest."""

    deadline_s: float
    in_stream: bool
    id: bytes
    header: bytes
    spans: Sequence[tuple[int, int]]


class RefusalText(NamedTuple):
    """An error: gRPC's number for it, when to try again (below 0: no hint), what to tell the client."""

    code: int
    retry_after_s: float
    details: str


class FrameReader:
    """Cuts what a socket brings into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
        if not self._rest:
            frames, used = _cut(data)
            self._rest += data[used:]
            return frames
        self._rest += data
        frames, used = _cut(self._rest)
        del self._rest[:used]
        return frames


def _cut(data: bytes | bytearray) -> tuple[list[Frame], int]:
    """Return the whole frames at the beginning, and where they end."""
    frames = []
    position, end = 0, len(data)
    while end - position >= _HEAD.size:
        length, kind, call = _HEAD.unpack_from(data, position)
        stop = position + _LENGTH_BYTES + length
        if stop > end:
            break
        frames.append(Frame(kind, call, bytes(data[position + _HEAD.size : stop])))
        position = stop
    return frames, position


def pack(kind: Kind, call: int = NO_CALL, *body: bytes) -> bytes:
    """Make a frame; the parts of its body are joined."""
    length = _HEAD.size - _LENGTH_BYTES + sum(map(len, body))
    return b"".join((_HEAD.pack(length, kind, call), *body))


def pack_message(call: int, request: Message) -> bytes:
    """Make a frame of a request."""
    return pack(Kind.MESSAGE, call, _MESSAGE.pack(request.deadline_s, request.method), request.message)


def unpack_message(body: bytes) -> Message:
    """Read a request."""
    deadline_s, method = _MESSAGE.unpack_from(body)
    return Message(deadline_s, method, body[_MESSAGE.size :])


def pack_referred(call: int, request: Referred) -> bytes:
    """Make a frame of a request whose pixels are in the arena."""
    deadline_s, in_stream, request_id, header, spans = request
    fixed = _REFERRED.pack(deadline_s, in_stream, len(request_id), len(spans))
    return pack(Kind.REFERRED, call, fixed, *[_SPAN.pack(*span) for span in spans], request_id, header)


def unpack_referred(body: bytes) -> Referred:
    """Read such a request."""
    deadline_s, in_stream, id_bytes, count = _REFERRED.unpack_from(body)
    place = _REFERRED.size
    spans = [_SPAN.unpack_from(body, place + index * _SPAN.size) for index in range(count)]
    place += count * _SPAN.size
    request_id, header = body[place : place + id_bytes], body[place + id_bytes :]
    return Referred(deadline_s, bool(in_stream), request_id, header, spans)


def pack_refusal(call: int, refusal: RefusalText) -> bytes:
    """Make a frame of an error."""
    fixed = _REFUSAL.pack(refusal.code, refusal.retry_after_s)
    return pack(Kind.REFUSAL, call, fixed, refusal.details.encode("utf-8", "replace"))


def unpack_refusal(body: bytes) -> RefusalText:
    """Read an error."""
    code, retry_after_s = _REFUSAL.unpack_from(body)
    return RefusalText(code, retry_after_s, body[_REFUSAL.size :].decode())


def pack_number(kind: Kind, value: float) -> bytes:
    """Make a frame whose body is a number (or a truth)."""
    return pack(kind, NO_CALL, _NUMBER.pack(value))


def unpack_number(body: bytes) -> float:
    """Read a number."""
    value: float = _NUMBER.unpack(body)[0]
    return value
