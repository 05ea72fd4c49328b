"""The core's end of a link; behind it a service that may hold on to pixels, as an engine does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import numpy as np
import pytest

from server.errors import InvalidArgument
from server.front_ends.desk import Desk, Remote
from server.front_ends.frames import (
    METHODS,
    FrameReader,
    Kind,
    Message,
    Referred,
    pack,
    pack_message,
    pack_referred,
)
from server.wire.request_parser import SplitRequest

INFER = METHODS.index("ModelInfer")
SPANS = [(64, 100), (192, 50)]


class Service:
    """Answers with the pixels, waits for ever, or refuses; and may keep what it saw, as an engine does."""

    def __init__(self) -> None:
        self.does = "answer"
        self.keeps = False
        self.kept: list[np.ndarray] = []

    def unary_methods(self) -> dict[str, object]:
        return {"ModelInfer": self.whole}

    async def whole(self, message: bytes, caller: Remote) -> bytes:
        return message[::-1]

    async def infer_split(self, split: SplitRequest, caller: Remote) -> bytes:
        arrays = [np.frombuffer(raw, np.uint8) for raw in split.raw]
        if self.keeps:
            self.kept += arrays
        if self.does == "wait":
            await asyncio.Event().wait()
        if self.does == "refuse":
            raise InvalidArgument("no")
        return b"".join(array.tobytes() for array in arrays)


class Rig:
    def __init__(self) -> None:
        self.service = Service()
        self.arena = memoryview(bytearray(range(256)))
        self.sent: list[tuple[int, int]] = []
        self.bodies: list[bytes] = []
        self.desk = Desk(self.service, self.arena, self._take)

    def _take(self, data: bytes) -> None:
        for kind, call, body in FrameReader().feed(data):
            self.sent.append((kind, call))
            self.bodies.append(body)

    def say(self, *frames: bytes) -> None:
        self.desk.receive(FrameReader().feed(b"".join(frames)))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing may have to wait for the collector, which hardly ever comes in a server."""
    gc.disable()
    yield
    gc.enable()


pytestmark = pytest.mark.usefixtures("no_collector")


def referred(call: int) -> bytes:
    return pack_referred(call, Referred(1e9, False, b"", b"", SPANS))


async def rounds() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_pixels_are_read_where_they_lie() -> None:
    rig = Rig()
    rig.say(referred(7))
    await rounds()
    assert rig.sent == [(Kind.ANSWER, 7)]
    assert rig.bodies == [bytes(rig.arena[64:164]) + bytes(rig.arena[192:242])]


async def test_other_requests_are_answered_as_they_are() -> None:
    rig = Rig()
    rig.say(pack_message(1, Message(1e9, INFER, b"abc")))
    await rounds()
    assert (rig.sent, rig.bodies) == ([(Kind.ANSWER, 1)], [b"cba"])


@pytest.mark.parametrize("does", ["wait", "refuse"])
async def test_what_is_refused_is_let_go_once_nobody_reads_it(does: str) -> None:
    rig = Rig()
    rig.service.does, rig.service.keeps = does, True
    rig.say(referred(7))
    await rounds()
    rig.say(pack(Kind.CANCEL, 7))
    await rounds()
    assert rig.sent == [(Kind.REFUSAL, 7)]
    rig.service.kept.clear()
    await rounds()
    assert rig.sent == [(Kind.REFUSAL, 7), (Kind.LET_GO, 7)]


async def test_what_is_cancelled_before_it_was_begun_is_let_go() -> None:
    rig = Rig()
    rig.say(referred(7), pack(Kind.CANCEL, 7), referred(8))
    await rounds()
    assert sorted(rig.sent) == sorted([(Kind.REFUSAL, 7), (Kind.LET_GO, 7), (Kind.ANSWER, 8)])


async def test_everything_is_withdrawn_when_the_front_end_is_gone() -> None:
    rig = Rig()
    rig.service.does = "wait"
    rig.say(referred(7), referred(8))
    await rounds()
    rig.desk.close()
    await rounds()
    assert sorted(rig.sent) == sorted(
        [(kind, call) for kind in (Kind.REFUSAL, Kind.LET_GO) for call in (7, 8)]
    )


async def test_a_cancellation_that_comes_late_is_nothing() -> None:
    rig = Rig()
    rig.say(referred(7))
    await rounds()
    rig.say(pack(Kind.CANCEL, 7), pack(Kind.CANCEL, 99))
    await rounds()
    assert rig.sent == [(Kind.ANSWER, 7)]
