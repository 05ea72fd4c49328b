"""A stream of requests that are worked on together and answered in their order.

Only the writing waits for its turn, which spares the client the sorting. A request takes no task of its own:
it is begun as it is read, and the writer waits for the answers one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from server.transport.rpc import Context

DEFAULT_IN_FLIGHT = 64

EntryT = TypeVar("EntryT")


class Worker(Protocol[EntryT]):
    """What answers the requests of streams. Failures are answers, too: it raises nothing."""

    def begin(self, message: bytes, context: Context) -> EntryT:
        """Begin with a request."""

    async def response(self, entry: EntryT) -> bytes:
        """Wait for what was begun; the message to write."""

    def abandon(self, entry: EntryT) -> None:
        """Give up what was begun: nobody will read it."""


class OrderedStream(Generic[EntryT]):
    """Answers streams of requests.

    Args:
        worker: answers each request.
        in_flight: how many requests of one stream are in work at once; more are left in the transport.
    """

    def __init__(self, worker: Worker[EntryT], in_flight: int = DEFAULT_IN_FLIGHT) -> None:
        self._worker = worker
        self._in_flight = in_flight

    async def answer(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Answer one stream until the client ends it; when it is cancelled, so is what is in flight."""
        pending: _Pending[EntryT] = _Pending(asyncio.Queue(), asyncio.Semaphore(self._in_flight))
        reading = asyncio.create_task(self._read(messages, context, pending))
        try:
            while (begun := await pending.entries.get()) is not None:
                await context.write(await self._worker.response(begun.entry))
                pending.slots.release()
                del begun  # its answer must not be held while waiting for the next one
            await reading
        finally:
            reading.cancel()
            while not pending.entries.empty():
                if (left := pending.entries.get_nowait()) is not None:
                    self._worker.abandon(left.entry)

    async def _read(
        self, messages: AsyncIterator[bytes], context: Context, pending: _Pending[EntryT]
    ) -> None:
        try:
            async for message in messages:
                await pending.slots.acquire()
                pending.entries.put_nowait(_Begun(self._worker.begin(message, context)))
        finally:
            pending.entries.put_nowait(None)


@dataclass(frozen=True, slots=True)
class _Begun(Generic[EntryT]):
    entry: EntryT


@dataclass(frozen=True, slots=True)
class _Pending(Generic[EntryT]):
    """Requests in work, in their order; None ends them. Each has a slot until its answer is written."""

    entries: asyncio.Queue[_Begun[EntryT] | None]
    slots: asyncio.Semaphore
