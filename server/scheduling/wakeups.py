"""When the event loop is to look at a queue next: later in this round, or at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeups:
    """Calls a function in the event loop when that was asked for; until `start` and after `stop` never.

    Args:
        call: what to call.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self.due = False
        """Whether the call comes later in this round of the loop."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to call; what was asked for before is forgotten."""
        self._loop = loop

    def stop(self) -> None:
        """Call no more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def soon(self) -> None:
        """Call once, later in this round, so that requests that arrive together ride together."""
        if not self.due and self._loop is not None:
            self.due = True
            self._loop.call_soon(self._wake)

    def after(self, delay_s: float) -> None:
        """Make sure of a call in at most so many seconds. An earlier timer is kept: it asks anew."""
        if self._loop is None:
            return
        at_s = self._loop.time() + delay_s
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._loop.call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        self.due = False
        if self._loop is not None:
            self._call()
