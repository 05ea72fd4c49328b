"""The core, as a front end sees it: something that answers bytes with bytes."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import InvalidArgument
from server.front_ends.arena import Blocks, aligned, give_pages_back
from server.front_ends.frames import (
    METHODS,
    Frame,
    Kind,
    Message,
    Referred,
    pack,
    pack_message,
    pack_referred,
    unpack_refusal,
)
from server.front_ends.refusals import error_of
from server.transport.rpc import Caller
from server.wire.request_fields import RequestFields, find_fields

REFER_BYTES = 1 << 14
"""From this size on a message's pixels go through the arena; the socket would copy them twice."""

_STREAMED = METHODS.index("ModelStreamInfer")
_INFERENCES = (METHODS.index("ModelInfer"), _STREAMED)


@dataclass(slots=True)
class Asked:
    """A request at the core, which may read the block of the arena until it has answered or let go of it."""

    call: int
    answer: asyncio.Future[bytes]
    block: int | None = None


class Core:
    """Asks the core. Belongs to the event loop.

    Args:
        send: sends a frame.
        arena: what is shared with the core.
    """

    def __init__(self, send: Callable[[bytes], None], arena: memoryview) -> None:
        self._send = send
        self._arena, self._blocks = arena, Blocks(len(arena))
        self._asked: dict[int, Asked] = {}
        self._numbers = itertools.count(1)

    async def ask(self, method: int, message: bytes, caller: Caller) -> bytes:
        """Have a request answered. Raises `RequestError`; cancelling the task withdraws it."""
        return await self.answer(self.begin(method, message, caller))

    async def answer(self, asked: Asked) -> bytes:
        """Wait for what was begun. Raises `RequestError`; cancelling the task withdraws it."""
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self.withdraw(asked)
            raise

    def begin(self, method: int, message: bytes, caller: Caller) -> Asked:
        """Send a request; `answer` must be awaited, or the request withdrawn."""
        left_s = caller.time_remaining()
        deadline_s = math.inf if left_s is None else time.monotonic() + left_s
        asked = Asked(next(self._numbers), asyncio.get_running_loop().create_future())
        self._asked[asked.call] = asked
        referred = self._referred(asked, method, deadline_s, message)
        self._send(referred or pack_message(asked.call, Message(deadline_s, method, message)))
        return asked

    def withdraw(self, asked: Asked) -> None:
        """Tell the core that nobody waits any more; its pixels stay until the core has let go of them."""
        asked.answer.cancel()
        if asked.call in self._asked:
            self._send(pack(Kind.CANCEL, asked.call))

    def receive(self, frame: Frame) -> None:
        """Take an answer or a refusal, or that the core has let go of the pixels of a refused request."""
        asked = self._asked.get(frame.call)
        if asked is None:
            return
        if frame.kind != Kind.REFUSAL or asked.block is None:
            self._forget(asked)
        if asked.answer.done():
            return
        if frame.kind == Kind.ANSWER:
            asked.answer.set_result(frame.body)
        elif frame.kind == Kind.REFUSAL:
            asked.answer.set_exception(error_of(unpack_refusal(frame.body)))

    def trim(self) -> None:
        """Give memory back that no request has needed since the last time."""
        give_pages_back(self._arena, *self._blocks.trim())

    def _forget(self, asked: Asked) -> None:
        del self._asked[asked.call]
        if asked.block is not None:
            self._blocks.give_back(asked.block)

    def _referred(self, asked: Asked, method: int, deadline_s: float, message: bytes) -> bytes | None:
        """A frame without pixels; None for what is small, odd or of another method, or has no room."""
        if len(message) < REFER_BYTES or method not in _INFERENCES:
            return None
        fields = _plain_fields(message)
        asked.block = fields and self._blocks.take(sum(aligned(stop - start) for start, stop in fields.raw))
        if fields is None or asked.block is None:
            return None
        spans = self._put(message, fields.raw, asked.block)
        in_stream = method == _STREAMED
        return pack_referred(asked.call, Referred(deadline_s, in_stream, fields.id, fields.header, spans))

    def _put(self, message: bytes, places: Sequence[tuple[int, int]], offset: int) -> list[tuple[int, int]]:
        """Copy parts of a message into the arena; return where each is, and its size."""
        view, spans = memoryview(message), []
        for start, stop in places:
            nbytes = stop - start
            self._arena[offset : offset + nbytes] = view[start:stop]
            spans.append((offset, nbytes))
            offset += aligned(nbytes)
        return spans


class StreamedCore:
    """Has the requests of streams answered by the core; a `Worker` of `ordered_stream`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def begin(self, message: bytes, caller: Caller) -> Asked:
        """Send a request."""
        return self._core.begin(_STREAMED, message, caller)

    async def response(self, asked: Asked) -> bytes:
        """Wait for its answer; failures come in band."""
        return await self._core.answer(asked)

    def abandon(self, asked: Asked) -> None:
        """Withdraw a request that nobody will wait for."""
        self._core.withdraw(asked)


def _plain_fields(message: bytes) -> RequestFields | None:
    """Find a request's parts; None where the core must look at it, and perhaps say what is wrong."""
    try:
        fields = find_fields(message)
    except InvalidArgument:
        return None
    return fields if fields is not None and fields.raw else None
