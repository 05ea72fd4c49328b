"""One end of the socket between a front end and the core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from server.front_ends.frames import Frame, FrameReader


class Link(asyncio.Protocol):
    """Sends and receives frames. Belongs to the event loop.

    Args:
        receive: told the frames that came together, in their order.
        lost: told once when the other end is gone.
    """

    def __init__(self, receive: Callable[[Sequence[Frame]], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if frames := self._reader.feed(data):
            self._receive(frames)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell that the other end is gone."""
        self._transport = None
        self._lost()

    def send(self, frame: bytes) -> None:
        """Send a frame, with what else is sent in this round of the loop; into the void when lost."""
        if self._transport is None:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(frame)

    def close(self) -> None:
        """Say what is left to say, and hang up. Idempotent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
        self._out.clear()
