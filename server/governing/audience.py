"""Those who watch: each is told everything from then on, and holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Audience(Generic[T]):
    """Tells watchers. Belongs to the event loop.

    Args:
        backlog: how much waits for a watcher who reads too slowly; he loses the oldest, not the newest.
    """

    def __init__(self, backlog: int) -> None:
        self._backlog = backlog
        self._queues: set[asyncio.Queue[T | None]] = set()
        self._ended = False

    def __len__(self) -> int:
        """How many are watching."""
        return len(self._queues)

    def tell(self, news: T) -> None:
        """Have every watcher hear it."""
        for queue in self._queues:
            _offer(queue, news)

    async def watch(self) -> AsyncIterator[T]:
        """Yield what is told from now on, until `end`."""
        if self._ended:
            return
        queue: asyncio.Queue[T | None] = asyncio.Queue(self._backlog)
        self._queues.add(queue)
        try:
            while (news := await queue.get()) is not None:
                yield news
        finally:
            self._queues.discard(queue)

    def end(self) -> None:
        """Nothing more is told: everybody may go."""
        self._ended = True
        for queue in self._queues:
            _offer(queue, None)


def _offer(queue: asyncio.Queue[T | None], news: T | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(news)
