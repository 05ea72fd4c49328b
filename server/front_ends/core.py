"""The core, as a front end sees it: something that answers bytes with bytes."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import InvalidArgument
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
from server.wire.request_fields import find_fields

REFER_BYTES = 1 << 14
"""A message from this size on is not sent to the core: it copies the pixels from this process's memory."""

_STREAMED = METHODS.index("ModelStreamInfer")
_INFERENCES = (METHODS.index("ModelInfer"), _STREAMED)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request at the core; the core may read `message` where it lies until it has answered."""

    call: int
    answer: asyncio.Future[bytes]
    message: bytes


class Core:
    """Asks the core. Belongs to the event loop.

    Args:
        send: sends a frame.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._asked: dict[int, Asked] = {}
        self._numbers = itertools.count(1)
        self.may_refer = False

    async def ask(self, method: int, message: bytes, caller: Caller) -> bytes:
        """Have a request answered. Raises `RequestError`; cancelling the task withdraws it."""
        asked = self.begin(method, message, caller)
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self.withdraw(asked)
            raise

    def begin(self, method: int, message: bytes, caller: Caller) -> Asked:
        """Send a request; `answer` must be awaited, or the request withdrawn."""
        left_s = caller.time_remaining()
        deadline_s = math.inf if left_s is None else time.monotonic() + left_s
        asked = Asked(next(self._numbers), asyncio.get_running_loop().create_future(), message)
        self._asked[asked.call] = asked
        self._send(self._referred(asked, method, deadline_s) or self._whole(asked, method, deadline_s))
        return asked

    def withdraw(self, asked: Asked) -> None:
        """Tell the core that nobody waits any more; its message stays until the core has let go of it."""
        asked.answer.cancel()
        if asked.call in self._asked:
            self._send(pack(Kind.CANCEL, asked.call))

    def receive(self, frame: Frame) -> None:
        """Take an answer or a refusal."""
        asked = self._asked.pop(frame.call, None)
        if asked is None or asked.answer.done():
            return
        if frame.kind == Kind.ANSWER:
            asked.answer.set_result(frame.body)
        else:
            asked.answer.set_exception(error_of(unpack_refusal(frame.body)))

    def _whole(self, asked: Asked, method: int, deadline_s: float) -> bytes:
        return pack_message(asked.call, Message(deadline_s, method, asked.message))

    def _referred(self, asked: Asked, method: int, deadline_s: float) -> bytes | None:
        """A frame without pixels; None where the message is small, odd, or for another method."""
        message = asked.message
        if not self.may_refer or len(message) < REFER_BYTES or method not in _INFERENCES:
            return None
        try:
            fields = find_fields(message)
        except InvalidArgument:
            return None  # the core will say so
        if fields is None:
            return None
        start = address_of(message)
        spans = [(start + begin, end - begin) for begin, end in fields.raw]
        in_stream = method == _STREAMED
        return pack_referred(asked.call, Referred(deadline_s, in_stream, fields.id, fields.header, spans))


class StreamedCore:
    """Has the requests of streams answered by the core; a `Worker` of `ordered_stream`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def begin(self, message: bytes, caller: Caller) -> Asked:
        """Send a request."""
        return self._core.begin(_STREAMED, message, caller)

    async def response(self, asked: Asked) -> bytes:
        """Wait for its answer; failures come in band."""
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self._core.withdraw(asked)
            raise

    def abandon(self, asked: Asked) -> None:
        """Withdraw a request that nobody will wait for."""
        self._core.withdraw(asked)


def address_of(message: bytes) -> int:
    """Where an immutable object's bytes lie; they stay there as long as it is held."""
    return ctypes.cast(ctypes.c_char_p(message), ctypes.c_void_p).value or 0
