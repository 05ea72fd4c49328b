"""The core's end of one link: answers what a front end's clients ask."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from server.engines.engine import Array
from server.front_ends.frames import (
    METHODS,
    Frame,
    Kind,
    Referred,
    pack,
    pack_refusal,
    unpack_message,
    unpack_referred,
)
from server.front_ends.refusals import CANCELLED, refusal_of
from server.inference.service import InferenceService
from server.wire.request_parser import SplitRequest


class Desk:
    """Answers calls, each in a task of its own. Belongs to the event loop.

    Args:
        service: what answers.
        arena: what is shared with it, and holds the pixels.
        send: sends a frame to it.
    """

    def __init__(self, service: InferenceService, arena: memoryview, send: Callable[[bytes], None]) -> None:
        self._service = service
        methods = service.unary_methods()
        self._methods = tuple([methods.get(name) for name in METHODS])
        self._arena = np.frombuffer(arena, np.uint8)
        self._send = send
        self._tasks: dict[int, asyncio.Task[bytes]] = {}

    def receive(self, frames: Sequence[Frame]) -> None:
        """Begin, or cancel, what came together."""
        for kind, call, body in frames:
            if kind == Kind.CANCEL:
                if (task := self._tasks.get(call)) is not None:
                    task.cancel()
            elif kind == Kind.REFERRED:
                self._begin_referred(call, unpack_referred(body))
            else:
                self._begin(call, self._answer(body))

    def close(self) -> None:
        """Withdraw everything: nobody is left to hear of it."""
        for task in tuple(self._tasks.values()):
            task.cancel()

    def _begin_referred(self, call: int, request: Referred) -> None:
        spans = request.spans
        first, last = spans[0], spans[-1]
        pixels = self._arena[first[0] : sum(last)]
        self._begin(call, self._infer(request, pixels.data), pixels)

    def _begin(self, call: int, answering: Coroutine[Any, Any, bytes], pixels: Array | None = None) -> None:
        task = asyncio.get_running_loop().create_task(answering)
        self._tasks[call] = task
        task.add_done_callback(lambda done: self._finish(call, done, pixels))

    def _finish(self, call: int, task: asyncio.Task[bytes], pixels: Array | None) -> None:
        del self._tasks[call]
        if not task.cancelled() and (error := task.exception()) is None:
            self._send(pack(Kind.ANSWER, call, task.result()))
            return
        if task.cancelled():
            self._send(pack_refusal(call, CANCELLED))
        elif isinstance(error, Exception):
            self._send(pack_refusal(call, refusal_of(error)))
        if pixels is not None:
            self._tell_when_let_go(call, pixels)

    def _tell_when_let_go(self, call: int, pixels: Array) -> None:
        """Say so once nothing refers to the pixels: the engine may be reading them for a batch that runs."""
        loop, told = asyncio.get_running_loop(), pack(Kind.LET_GO, call)

        def tell() -> None:  # in whatever thread lets go of them last
            with suppress(RuntimeError):  # the loop has ended: nobody waits for this any more
                loop.call_soon_threadsafe(self._send, told)

        weakref.finalize(pixels, tell).atexit = False

    async def _answer(self, body: bytes) -> bytes:
        deadline_s, method, message = unpack_message(body)
        caller = Remote(deadline_s)
        answer = self._methods[method]
        if answer is not None:
            return await answer(message, caller)
        streamed = self._service.streamed
        return await streamed.response(streamed.begin(message, caller))

    async def _infer(self, request: Referred, pixels: memoryview) -> bytes:
        deadline_s, in_stream, request_id, header, spans = request
        origin = spans[0][0]
        raw = tuple([pixels[start - origin : start - origin + nbytes] for start, nbytes in spans])
        split, caller = SplitRequest(header, request_id, raw), Remote(deadline_s)
        if in_stream:
            streamed = self._service.streamed
            return await streamed.response(streamed.begin_split(split, caller))
        return await self._service.infer_split(split, caller)


class Remote:
    """A client that waits at a front end. `deadline_s` is a time on the monotonic clock, which all share."""

    __slots__ = ("_deadline_s",)

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def time_remaining(self) -> float | None:
        """Seconds until it gives up; None: never."""
        return None if math.isinf(self._deadline_s) else self._deadline_s - time.monotonic()
