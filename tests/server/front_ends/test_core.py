from __future__ import annotations

import asyncio
import math

import pytest

from protos import grpc_service_pb2 as pb
from server.errors import NotFound
from server.front_ends.core import REFER_BYTES, Core
from server.front_ends.frames import (
    METHODS,
    Frame,
    FrameReader,
    Kind,
    pack,
    pack_refusal,
    unpack_message,
    unpack_referred,
)
from server.front_ends.refusals import CANCELLED, refusal_of

INFER = METHODS.index("ModelInfer")


class Patient:
    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


class Rig:
    """A core's end that remembers what it was sent, and answers when it is told to."""

    def __init__(self, arena_bytes: int = 1 << 20) -> None:
        self.arena = memoryview(bytearray(arena_bytes))
        self.sent: list[Frame] = []
        self._reader = FrameReader()
        self.core = Core(lambda frame: self.sent.extend(self._reader.feed(frame)), self.arena)

    def ask(self, message: bytes, seconds: float | None = None) -> asyncio.Task[bytes]:
        return asyncio.create_task(self.core.ask(INFER, message, Patient(seconds)))

    def answer(self, frame: Frame, answer: bytes = b"answer") -> None:
        (back,) = FrameReader().feed(pack(Kind.ANSWER, frame.call, answer))
        self.core.receive(back)


def large(*contents: bytes, request_id: str = "") -> bytes:
    request = pb.ModelInferRequest(model_name="m", id=request_id, raw_input_contents=contents)
    return request.SerializeToString()


async def test_pixels_go_through_the_arena() -> None:
    rig, contents = Rig(), (b"\1" * (REFER_BYTES + 1), b"\2" * 70)
    task = rig.ask(large(*contents, request_id="me"))
    await asyncio.sleep(0)
    (frame,) = rig.sent
    request = unpack_referred(frame.body)
    assert (frame.kind, request.id, request.deadline_s, request.in_stream) == (
        Kind.REFERRED,
        b"me",
        math.inf,
        False,
    )
    assert [bytes(rig.arena[start : start + nbytes]) for start, nbytes in request.spans] == list(contents)
    assert len(frame.body) < 100
    rig.answer(frame)
    assert await task == b"answer"


async def test_small_odd_and_other_messages_go_as_they_are() -> None:
    rig = Rig()
    messages = [
        large(bytes(10)),
        b"\xff" * REFER_BYTES,
        large(*[b"x" * 400] * 65),
        large() + b"\x0a\x00" * REFER_BYTES,
    ]
    tasks = [rig.ask(message) for message in messages]
    await asyncio.sleep(0)
    assert [frame.kind for frame in rig.sent] == [Kind.MESSAGE] * len(messages)
    assert [unpack_message(frame.body).message for frame in rig.sent] == messages
    for task in tasks:
        task.cancel()


async def test_where_the_arena_is_full_messages_go_as_they_are_until_there_is_room() -> None:
    rig = Rig(arena_bytes=2 * REFER_BYTES)
    message = large(bytes(REFER_BYTES))
    first, second, third = (rig.ask(message) for _ in range(3))
    await asyncio.sleep(0)
    assert [frame.kind for frame in rig.sent] == [Kind.REFERRED, Kind.REFERRED, Kind.MESSAGE]
    for frame in rig.sent:
        rig.answer(frame)
    assert await asyncio.gather(first, second, third) == [b"answer"] * 3
    last = rig.ask(message)
    await asyncio.sleep(0)
    assert rig.sent[-1].kind == Kind.REFERRED
    last.cancel()


async def test_a_cancelled_request_keeps_its_pixels_until_the_core_lets_go() -> None:
    rig = Rig(arena_bytes=REFER_BYTES)
    message = large(bytes(REFER_BYTES - 64))
    task = rig.ask(message + b"\x0a\x00" * 64)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    asked, cancelled = rig.sent
    assert (asked.kind, cancelled.kind, cancelled.call) == (Kind.REFERRED, Kind.CANCEL, asked.call)
    rig.ask(message + b"\x0a\x00" * 64)
    await asyncio.sleep(0)
    assert rig.sent[-1].kind == Kind.MESSAGE
    (_, _, refused), *_ = FrameReader().feed(pack_refusal(asked.call, CANCELLED))
    rig.core.receive(Frame(Kind.REFUSAL, asked.call, refused))
    rig.ask(message + b"\x0a\x00" * 64)
    await asyncio.sleep(0)
    assert rig.sent[-1].kind == Kind.MESSAGE
    rig.core.receive(Frame(Kind.LET_GO, asked.call, b""))
    rig.ask(message + b"\x0a\x00" * 64)
    await asyncio.sleep(0)
    assert rig.sent[-1].kind == Kind.REFERRED


async def test_a_refusal_is_raised_as_what_it_was() -> None:
    rig = Rig()
    task = rig.ask(b"")
    await asyncio.sleep(0)
    (back,) = FrameReader().feed(pack_refusal(rig.sent[0].call, refusal_of(NotFound("no such model"))))
    rig.core.receive(back)
    rig.core.receive(back)  # whoever was answered is not disturbed again
    with pytest.raises(NotFound, match="no such model"):
        await task


async def test_a_deadline_is_a_time_on_the_clock_that_all_share() -> None:
    rig = Rig()
    task = rig.ask(b"", seconds=5.0)
    await asyncio.sleep(0)
    deadline_s = unpack_message(rig.sent[0].body).deadline_s
    assert deadline_s - asyncio.get_running_loop().time() == pytest.approx(5.0, abs=1.0)
    task.cancel()
