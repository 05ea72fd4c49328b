"""Running the governor beside the server: a step each interval, in a thread of its own, told to watchers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from optimizer.devices.gpu import Gpu
from optimizer.governor import Governor, Record
from server.governing.decision_text import decision_line
from server.metrics.values import RunningTotals

T = TypeVar("T")

logger = logging.getLogger("boulton.governor")

# A watcher that reads too slowly loses the oldest decisions, not the newest.
WATCHER_BACKLOG = 64


class Governing:
    """A governor at work on one model. Belongs to the event loop; steps run in a thread: devices may be slow.

    Args:
        governor: steps; used by the thread only, but for `targets` and `point`.
        device: what it governs, for those who show it.
        model: which model it governs.
        interval_s: from one step to the next.
    """

    def __init__(self, governor: Governor, device: Gpu, model: str, interval_s: float) -> None:
        self.governor = governor
        self.device = device
        self.model = model
        self.last: Record | None = None
        self.totals = RunningTotals()
        self._interval_s = interval_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="governor")
        self._watchers: set[asyncio.Queue[Record | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._failure = ""
        self._started = False
        self._stopped = False

    async def start(self) -> None:
        """Apply the default setting, open the first window and go on from there."""
        self._started = True
        refused = await self._in_thread(self.governor.start)
        if refused:
            logger.warning("%s", refused)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the steps and give the device its own settings back, even after half a start. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._started:
            await self._restore()
        for watcher in self._watchers:
            _offer(watcher, None)
        self._thread.shutdown(wait=False)

    async def watch(self) -> AsyncIterator[Record]:
        """Yield every decision from now on, until `stop`."""
        if self._stopped:
            return
        queue: asyncio.Queue[Record | None] = asyncio.Queue(WATCHER_BACKLOG)
        self._watchers.add(queue)
        try:
            while (record := await queue.get()) is not None:
                yield record
        finally:
            self._watchers.discard(queue)

    @property
    def watchers(self) -> int:
        """How many are watching."""
        return len(self._watchers)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._step()

    async def _step(self) -> None:
        try:
            record = await self._in_thread(self.governor.step)
        except Exception as error:
            self._complain(error)
            return
        self._failure = ""
        self._publish(record)

    async def _restore(self) -> None:
        # In the same thread, so after a step that was under way when the loop was cancelled.
        refused = await self._in_thread(self.governor.stop)
        if refused:
            logger.warning("%s", refused)
        else:
            logger.info("restored: %s", self.governor.point)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _complain(self, error: Exception) -> None:
        """Keep serving at the last setting; say so once as long as the failure stays the same."""
        failure = f"{type(error).__name__}: {error}"
        if failure != self._failure:
            logger.error("governing failed; the setting stays at %s", self.governor.point, exc_info=error)
        self._failure = failure

    def _publish(self, record: Record) -> None:
        self.last = record
        self.totals.add(record)
        logger.log(_level(record), "%s: %s", self.model, decision_line(record))
        if record.error is not None:
            logger.warning("%s", record.error)
        for watcher in self._watchers:
            _offer(watcher, record)


def _level(record: Record) -> int:
    """An idle server that stays as it is has nothing to tell every second."""
    window = record.window
    idle = not (window.traffic.arrived or window.traffic.completed or window.traffic.queued)
    return logging.DEBUG if idle and record.decision.point == window.point else logging.INFO


def _offer(queue: asyncio.Queue[Record | None], record: Record | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(record)
