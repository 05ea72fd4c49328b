"""Waits for the C core's events in a thread of its own, and passes on to the event loop what they lead to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from server.transport.completions.binding import core

LONGEST_WAIT_S = 1.0

logger = logging.getLogger("boulton.grpc")


class Poller:
    """Calls each event's tag with the event, in a thread; `post` brings what follows into the event loop.

    What is posted while the loop is busy runs together, for one waking of the loop: grpc.aio wakes it once
    for every event, three or four times a call, which is most of what a small call costs there.

    Args:
        loop: where posted calls run.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = core.CompletionQueue()
        self._loop = loop
        self._posted: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._woken = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="boulton-grpc", daemon=True)

    def start(self) -> None:
        """Begin to wait for events."""
        self._thread.start()

    def end(self) -> None:
        """Wait for no more events. To be called by a tag, in the thread."""
        self._ended = True

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def post(self, callback: Callable[[Any], object], argument: object) -> None:
        """Have the event loop call something, in the order of posting; from either thread."""
        self._posted.append((callback, argument))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended: nobody cares any more
                self._loop.call_soon_threadsafe(self._run_posted)

    def _run_posted(self) -> None:
        self._woken = False  # first: whatever is posted from here on wakes the loop again
        for _ in range(len(self._posted)):
            callback, argument = self._posted.popleft()
            try:
                callback(argument)
            except Exception:
                logger.exception("unexpected error in a gRPC call")

    def _run(self) -> None:
        timeout = core.CompletionType.queue_timeout
        while not self._ended:
            try:
                event = self.queue.poll(time.time() + LONGEST_WAIT_S)
                if event.completion_type != timeout:
                    event.tag(event)
            except Exception:  # this thread serves all calls
                logger.exception("unexpected error in gRPC's thread")
            event = None  # it holds a call, which must not outlive what it is for
