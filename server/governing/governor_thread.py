"""The thread in which the governor works: a device may be slow, or hang, and must not hold up the server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class GovernorThread:
    """Runs functions one after the other. A daemon thread: the process ends without waiting for it.

    `cpu_s` is the processor time that they have taken.
    """

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="governor", daemon=True)
        self._started = False

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function after those before it. To stop waiting for the result does not stop the function."""
        if not self._started:
            self._started = True
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put(lambda: _run(function, loop, done))
        return done

    def close(self) -> None:
        """End after what was already asked for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self.cpu_s = time.thread_time()


def _run(function: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    failure: Exception | None = None
    try:
        result = function()
    except Exception as error:
        failure = error

    def tell() -> None:
        if done.cancelled():
            return
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        return  # the loop has ended: nobody waits for this any more
