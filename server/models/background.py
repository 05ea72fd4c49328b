"""Work that goes on when the client that asked for it hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.errors import Unavailable

T = TypeVar("T")


class BackgroundTasks:
    """A bounded set of tasks that nobody but their end removes. Belongs to one event loop.

    Args:
        limit: how many may run or wait at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work and return its result; when the caller is cancelled meanwhile, the work goes on.

        Raises:
            Unavailable: too much is going on already.
        """
        if len(self._tasks) >= self._limit:
            work.close()
            raise Unavailable(
                f"{len(self._tasks)} operations are under way and {self._limit} may be: try again"
            )
        return await asyncio.shield(self.start(work))

    async def wait(self, timeout_s: float) -> bool:
        """Wait for everything under way. Return whether it ended in time."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(self._tasks, timeout=timeout_s)
        return not pending

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have hung up: then its failure is nobody's news any more
