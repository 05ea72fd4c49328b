"""Where the GPUs' threads and the signal handlers leave word for the loop, which sleeps in a selector."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from optimizer.devices.keeper.clerk import Outcome

_CHUNK = 4096


class Mailbox:
    """Outcomes and the wish to stop; putting one in wakes whoever selects on `awake`."""

    def __init__(self) -> None:
        self.stop_asked = False
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self.awake, self._waker = socket.socketpair()
        self.awake.setblocking(False)
        self._waker.setblocking(False)

    def put(self, outcome: Outcome) -> None:
        """Report a finished job; from any thread."""
        self._outcomes.put(outcome)
        self._wake()

    def ask_to_stop(self) -> None:
        """Ask the keeper to end; from any thread or signal handler."""
        self.stop_asked = True
        self._wake()

    def take(self) -> Iterator[Outcome]:
        """Take out what is there."""
        with suppress(BlockingIOError):
            self.awake.recv(_CHUNK)
        with suppress(Empty):
            while True:
                yield self._outcomes.get_nowait()

    def _wake(self) -> None:
        # When no more fits in, so many wake-ups wait there already that the loop will look.
        with suppress(BlockingIOError):
            self._waker.send(b"\0")
