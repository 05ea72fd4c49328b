"""Running the governor beside the server: a step each interval, in a thread of its own, told to watchers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from optimizer.devices.gpu import Gpu
from optimizer.governor import Governor, Record
from optimizer.insight import Insight, Insightful
from optimizer.operating_point import OperatingPoint
from optimizer.policies.policy import Learner
from optimizer.targets import Targets
from server.errors import Unavailable
from server.governing.audience import Audience
from server.governing.decision_text import decision_line
from server.governing.governor_thread import GovernorThread
from server.governing.memory import Keeping, Memory
from server.governing.watchdog import Watchdog
from server.metrics.values import RunningTotals

T = TypeVar("T")

logger = logging.getLogger("boulton.governor")

# A watcher that reads too slowly loses the oldest decisions, not the newest.
WATCHER_BACKLOG = 64
REMEMBERED = 600
# A device that hangs must not hold up the end of the server.
STOP_LIMIT_S = 10.0
# Nor its beginning, nor an operator.
ANSWER_LIMIT_S = 5.0
# From one look for a keeper that was not there to the next.
CLOCKS_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the governor as the server tells it: when, and under what orders of the operator."""

    record: Record
    decided_unix_s: float
    pinned: OperatingPoint | None = None
    paused: bool = False


Appoint = Callable[[tuple[int, ...]], tuple[Governor, Keeping]]
"""Makes a governor of these SM clocks, and says where what it knows is kept."""


class Governing:
    """A governor at work on one model. Belongs to the event loop; steps run in a thread: devices may be slow.

    Args:
        governor: steps; used by the thread only, but for `targets`, `point`, `paused` and the pin.
        device: what it governs, for those who show it.
        model: which model it governs.
        interval_s: from one step to the next.
        keeping: where to keep targets and knowledge; None keeps nothing.
        appoint: makes another governor when clocks may be set that the present one does not have, as when the
            keeper comes late; None leaves it at the first.
    """

    def __init__(
        self,
        governor: Governor,
        device: Gpu,
        model: str,
        interval_s: float,
        keeping: Keeping | None = None,
        appoint: Appoint | None = None,
    ) -> None:
        self.device = device
        self.model = model
        self.history: deque[Turn] = deque(maxlen=REMEMBERED)
        self.totals = RunningTotals()
        self.alarms = 0
        self._interval_s = interval_s
        self._appoint = appoint
        self._look_again_s = time.monotonic() + CLOCKS_AGAIN_S
        self._audience: Audience[Turn] = Audience(WATCHER_BACKLOG)
        self._watchdog = Watchdog(device.uuid)
        self._thread = GovernorThread()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._targets_change = asyncio.Lock()
        self._turns = 0
        self._failure = ""
        self._stopped = False
        self._take_office(governor, keeping)

    def _take_office(self, governor: Governor, keeping: Keeping | None) -> None:
        self.governor = governor
        self._keeping = keeping
        self._memory = Memory(self.learner, keeping)
        governor.hear = self._hear

    @property
    def last(self) -> Record | None:
        """The latest window and decision; None before the first."""
        return self.history[-1].record if self.history else None

    @property
    def cpu_s(self) -> float:
        """Processor time of the governor's thread: sensing, deciding, acting."""
        return self._thread.cpu_s

    @property
    def watchers(self) -> int:
        """How many are watching."""
        return len(self._audience)

    @property
    def learner(self) -> Learner | None:
        """The policy, if it is one that learns."""
        policy: object = self.governor.policy
        return policy if isinstance(policy, Learner) else None

    @property
    def learned_file(self) -> str:
        """Where knowledge is kept; empty: nowhere."""
        return self._memory.path

    async def start(self) -> None:
        """Remember, apply the default setting, open the first window and go on from there.

        A device that does not answer is not waited for: its governor begins when it does.
        """
        self._loop = asyncio.get_running_loop()
        begun = self._thread.call(self._begin)
        await asyncio.wait([begun], timeout=ANSWER_LIMIT_S)
        if begun.done():
            _warn(begun.result())
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the steps and give the device its own settings back, even after half a start. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._loop is not None:
            await self._finish()
        self._audience.end()
        self._thread.close()

    def watch(self) -> AsyncIterator[Turn]:
        """Yield every turn from now on, until `stop`."""
        return self._audience.watch()

    def latest(self, count: int) -> Sequence[Turn]:
        """Return the latest turns, oldest first; 0: all that are remembered."""
        return list(self.history)[-count:]

    # Orders of the operator

    async def set_targets(self, targets: Targets) -> str | None:
        """Want something else from the next decision on, and after a restart; say why not after that."""
        self.governor.targets = targets
        if self._keeping is None:
            return None
        async with self._targets_change:
            return await asyncio.to_thread(self._keeping.targets.save, self.governor.targets)

    async def learned(self) -> Mapping[str, object]:
        """Return what the policy has learned; nothing when it is not one that learns."""
        learner = self.learner
        return {} if learner is None else await self._answer(learner.export_state)

    async def insight(self) -> Insight | None:
        """Return what the policy can tell of what it has learned; None when it cannot."""
        policy: object = self.governor.policy
        return await self._answer(policy.insight) if isinstance(policy, Insightful) else None

    async def forget(self) -> None:
        """Have the policy start anew, and keep nothing of what it learned."""
        await self._answer(self._memory.forget)

    async def _answer(self, function: Callable[[], T]) -> T:
        """Run a function in the governor's thread for an operator. Raises `Unavailable` when that hangs."""
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                return await self._thread.call(function)
        except TimeoutError as error:
            raise Unavailable(
                f"{self.device.uuid} keeps the governor waiting: try again when it answers"
            ) from error

    # In the governor's thread

    def _begin(self) -> str | None:
        self._memory.recall()
        return self.governor.start()

    def _turn(self) -> Record:
        self._turns += 1
        record = self.governor.step()
        self._memory.save_now_and_then()
        return record

    def _take_refuge(self, turn: int) -> OperatingPoint | None:
        """Do what the alarm asks for, unless a newer decision has already seen why it sounded."""
        if turn != self._turns:
            return None
        before = self.governor.point
        _warn(self.governor.alarm())
        return self.governor.point if self.governor.point != before else None

    # In the event loop

    def _hear(self) -> None:
        """Hear the alarm, in the middle of whatever the scheduler does: only take note of it."""
        if self._loop is not None and not self._stopped:
            turn = self._turns
            refuge = self._thread.call(lambda: self._take_refuge(turn))
            refuge.add_done_callback(self._took_refuge)

    def _took_refuge(self, refuge: asyncio.Future[OperatingPoint | None]) -> None:
        if refuge.cancelled():
            return
        error = refuge.exception()
        if isinstance(error, Exception):
            self._complain(error)
        elif (point := refuge.result()) is not None:
            self.alarms += 1
            logger.info("%s: work piles up, takes refuge at %s", self.model, point)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                with self._watchdog.watching():
                    await self._step()
                    await self._follow_clocks()
            except Exception as error:
                self._complain(error)
            else:
                self._failure = ""

    async def _step(self) -> None:
        governor = self.governor
        pinned, paused = governor.pinned, governor.paused
        record = await self._thread.call(self._turn)
        self._publish(Turn(record, time.time(), pinned, paused))

    async def _follow_clocks(self) -> None:
        """Have another governor when other clocks may be set: a keeper came late, or permits others now."""
        clocks_mhz = self.governor.grid.sm_clocks_mhz
        now_s = time.monotonic()
        if self._appoint is None or now_s < self._look_again_s:
            return
        if clocks_mhz and not self.governor.clock_refused:
            return
        self._look_again_s = now_s + CLOCKS_AGAIN_S
        found_mhz = await self._thread.call(lambda: self.device.sm_clocks_mhz)
        if found_mhz and found_mhz != clocks_mhz:
            await self._hand_over(self._appoint, found_mhz)

    async def _hand_over(self, appoint: Appoint, clocks_mhz: tuple[int, ...]) -> None:
        """Put another governor in the place of the present one, under the same orders of the operator."""
        await self._thread.call(self._memory.save)
        governor, keeping = await self._thread.call(lambda: appoint(clocks_mhz))
        former = self.governor
        self._take_office(governor, keeping)
        governor.targets, governor.paused = former.targets, former.paused
        if former.pinned is not None:
            governor.pin(governor.grid.nearest(former.pinned))
        low, high = clocks_mhz[0], clocks_mhz[-1]
        logger.info("%s: its clock is governed from now on, %d to %d MHz", self.device.uuid, low, high)
        _warn(await self._thread.call(self._begin))

    async def _finish(self) -> None:
        """Restore and save, in the thread: after whatever was under way when the loop was cancelled."""
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await self._restore()
                await self._thread.call(self._memory.save)
        except TimeoutError:
            logger.error(
                "%s did not answer within %g s; a clock that the keeper lent goes back when this server ends",
                self.device.uuid,
                STOP_LIMIT_S,
            )
        except Exception as error:
            logger.error("what was learned is not saved", exc_info=error)

    async def _restore(self) -> None:
        refused = await self._thread.call(self.governor.stop)
        _warn(refused)
        if not refused:
            logger.info("restored: %s", self.governor.point)

    def _complain(self, error: Exception) -> None:
        """Keep serving at the last setting; say so once as long as the failure stays the same."""
        failure = f"{type(error).__name__}: {error}"
        if failure != self._failure:
            logger.error("governing failed; the setting stays at %s", self.governor.point, exc_info=error)
        self._failure = failure

    def _publish(self, turn: Turn) -> None:
        record = turn.record
        self.history.append(turn)
        self.totals.add(record)
        logger.log(_level(record), "%s: %s", self.model, decision_line(record, turn.pinned))
        _warn(record.error)
        self._audience.tell(turn)


def _level(record: Record) -> int:
    """An idle server that stays as it is has nothing to tell every second."""
    window = record.window
    idle = not (window.traffic.arrived or window.traffic.completed or window.traffic.queued)
    return logging.DEBUG if idle and record.decision.point == window.point else logging.INFO


def _warn(refused: str | None) -> None:
    if refused:
        logger.warning("%s", refused)
