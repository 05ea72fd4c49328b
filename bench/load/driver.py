"""Sending requests: after the answer to the one before (closed loop), or when they are due (open loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import grpc

from bench.load.measuring import DROPPED, Recorder
from bench.load.pacing import Pacer
from bench.load.payloads import Payloads

# A closed-loop client whose request failed waits, so that a server that refuses everything is not hammered.
PAUSE_AFTER_FAILURE_S = 0.01

Call = Callable[[bytes, float | None], Awaitable[bytes]]
"""Sends one request, with a timeout in seconds; returns the answer or raises `grpc.aio.AioRpcError`."""


class Driver:
    """Sends requests and records what becomes of them. Times are on the monotonic clock.

    Args:
        call: sends one request.
        payloads: the requests.
        recorder: counts.
        timeout_s: a request's deadline from the time that it is due; None: none.
    """

    def __init__(self, call: Call, payloads: Payloads, recorder: Recorder, timeout_s: float | None) -> None:
        self._call = call
        self._payloads = payloads
        self._recorder = recorder
        self._timeout_s = timeout_s
        self._under_way: set[asyncio.Task[None]] = set()

    async def closed(self, concurrency: int, images: int) -> None:
        """Keep `concurrency` requests under way until the window ends; then until the last is answered."""
        await asyncio.gather(*(self._client(images) for _ in range(concurrency)))

    async def open(self, arrivals: Iterable[tuple[float, int]], pacer: Pacer, max_in_flight: int) -> None:
        """Send every request when it is due, given as `(time_s, images)`; then wait for the last answer."""
        for due_s, images in arrivals:
            await pacer.until(due_s)
            if due_s > self._recorder.end_s:
                break
            if len(self._under_way) < max_in_flight:
                self._start(due_s, images)
            else:
                message = f"not sent: {max_in_flight} requests were under way, see --max-in-flight"
                self._recorder.failure(due_s, time.monotonic(), images, DROPPED, message)
        await asyncio.gather(*self._under_way)

    def _start(self, due_s: float, images: int) -> None:
        task = asyncio.create_task(self._send(due_s, images))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def give_up(self) -> None:
        """Cancel what is under way; it counts as unanswered."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _client(self, images: int) -> None:
        while (due_s := time.monotonic()) < self._recorder.end_s:
            if not await self._attempt(due_s, due_s, images):
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def _send(self, due_s: float, images: int) -> None:
        sent_s = time.monotonic()
        self._recorder.sent(due_s, sent_s)
        await self._attempt(due_s, sent_s, images)

    async def _attempt(self, due_s: float, sent_s: float, images: int) -> bool:
        try:
            await self._call(self._payloads.next(images), self._remaining_s(due_s, sent_s))
        except Exception as error:  # whatever it is, it is counted under its name and shown
            self._recorder.failure(due_s, time.monotonic(), images, *_code_and_message(error))
            return False
        except asyncio.CancelledError:
            self._recorder.unanswered(due_s, images)
            raise
        self._recorder.answer(due_s, time.monotonic(), images)
        return True

    def _remaining_s(self, due_s: float, sent_s: float) -> float | None:
        """What is left of the deadline; a request that was sent too late still gets a millisecond."""
        return None if self._timeout_s is None else max(0.001, self._timeout_s - (sent_s - due_s))


def _code_and_message(error: Exception) -> tuple[str, str]:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, error.details() or ""
    return type(error).__name__, str(error)
