"""The loop: sense, decide, act."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from optimizer.devices.gpu import DeviceError, DeviceGone
from optimizer.holdback import Holdback
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision, Policy
from optimizer.revenue import Revenue, Targets, most_revenue, settled_images, window_revenue
from optimizer.surge import Tripwire
from optimizer.telemetry import Cut, DeviceReading, SoFar, Traffic, Window

CLOCK_RETRY_STEPS = (2, 4, 8)
"""After the device refused a clock, the batch limit alone is governed for this many steps; longer, each time
that it refuses again, but never long: whoever sets the clocks may have been restarted meanwhile."""

_NUMBERS = re.compile(r"\d+")

SECONDS_PER_DAY = 86_400.0


class Plant(Protocol):
    """What is governed: a scheduler and its device, real or simulated."""

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        """Return what happened since the previous call."""

    def act(self, point: OperatingPoint) -> None:
        """Apply batch limit and delay, then the clock; an SM clock of None gives it back to the device.

        Called with every window in which the clock was not in force: how often it is set again is the plant's
        affair.

        Raises DeviceError when the device refuses; the batch limit is then in force all the same.
        """

    def so_far(self) -> SoFar:
        """Return what is known since the previous `sense`; of batches the last `LATEST_BATCHES` at most."""

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` once, as soon as the wire is tripped; None: never. Replaces the last watch.

        It may be called from any thread, and in the middle of something: whoever hears it takes note and has
        `Governor.alarm` called by the owner.
        """


@dataclass(frozen=True, slots=True)
class Record:
    """One turn of the loop: what was measured, what it earned, what was decided.

    `error` is what the device refused, said once until it takes a clock again. `held_back`: the default
    setting is in force in spite of the decision, to be compared with.
    """

    window: Window
    revenue: Revenue
    decision: Decision
    error: str | None = None
    held_back: bool = False


class Governor:
    """Asks the plant for a window, the policy for a decision, and applies it. One owner calls its methods.

    Args:
        plant: senses and acts.
        policy: decides.
        grid: the legal settings; its default is where the loop starts and what `stop` restores.
        targets: what the operator wants; may be set at any time, from any thread, for the next step.
        clock: the time in seconds, on which windows are stamped.
        time_of_day: seconds since midnight, for prices that depend on it; None takes the clock modulo a day.
        hear: called when the plant sounds the alarm; has the owner call `alarm`. None ignores alarms.
        holdback: holds the default setting now and then, to measure what governing saves; None never.
    """

    def __init__(
        self,
        plant: Plant,
        policy: Policy,
        grid: OperatingGrid,
        targets: Targets,
        clock: Callable[[], float],
        *,
        time_of_day: Callable[[], float] | None = None,
        hear: Callable[[], None] | None = None,
        holdback: Holdback | None = None,
    ) -> None:
        self.targets = targets
        self.paused = False
        self._pinned: OperatingPoint | None = None
        self._alarm: Alarm | None = None
        self._time_of_day = time_of_day or (lambda: clock() % SECONDS_PER_DAY)
        self.hear = hear
        self.holdback = holdback
        self._plant = plant
        self._policy = policy
        self._grid = grid
        self._clock = clock
        self._point = grid.default
        self._opened_s: float | None = None
        self._cut: Cut | None = None
        self._scored_by: tuple[Targets, Targets] | None = None
        self._said: set[str] = set()
        self._refusals = 0
        self._clock_retry_in = 0

    @property
    def policy(self) -> Policy:
        """Who decides."""
        return self._policy

    @property
    def grid(self) -> OperatingGrid:
        """The legal settings."""
        return self._grid

    @property
    def point(self) -> OperatingPoint:
        """The setting last asked for; its clock is None while the device refuses to set it."""
        return self._point

    @property
    def clock_refused(self) -> bool:
        """Whether the device refuses clocks, so that the batch limit alone is governed for a while."""
        return self._refusals > 0

    def start(self) -> str | None:
        """Apply the default setting and open the first window. Returns what the device refused."""
        error = self._act(self._grid.default)
        self._plant.sense(self.targets.slo_p99_ms)
        self._opened_s = self._clock()
        return error

    @property
    def pinned(self) -> OperatingPoint | None:
        """The setting that the operator wants whatever the policy says; None when the policy is free."""
        return self._pinned

    def pin(self, point: OperatingPoint | None) -> None:
        """Hold a setting from the next step on, None to let go. Raises ValueError when it is not legal."""
        if point is not None and point not in self._grid:
            raise ValueError(f"{point} is not among the {len(self._grid)} legal settings")
        self._pinned = point

    def step(self) -> Record:
        """Close the window, decide, act. The first step starts the loop if `start` did not."""
        error = self.start() if self._opened_s is None else None
        wishes = self.targets
        targets = wishes.at(self._time_of_day())
        window = self._window(targets)
        decision = self._decide(window, targets)
        revenue = window_revenue(targets, window)
        held_back = self._held_back(window, revenue, wishes, targets)
        wanted = self._permitted(self._pinned or (self._grid.default if held_back else decision.point))
        if wanted != self._point or _not_in_force(window, wanted):
            error = self._act(wanted)
        self._set_alarm(None if held_back else decision.alarm)
        return Record(window, revenue, decision, error, held_back)

    def alarm(self) -> str | None:
        """Take refuge at once, as the last decision said. Returns what the device refused."""
        alarm, self._alarm = self._alarm, None
        if alarm is None or self.paused or self._pinned is not None:
            return None
        if self._cut is None and alarm.refuge.sm_clock_mhz != self._point.sm_clock_mhz:
            so_far = self._plant.so_far()
            self._cut = Cut(self._point, so_far.batches, self._clock(), so_far.arrived)
        error = self._act(self._permitted(alarm.refuge))
        self._set_alarm(alarm.then)
        return error

    def stop(self) -> str | None:
        """Restore the default batch limit and give the clock back. Returns what the device refused."""
        self._opened_s = self._cut = None
        self._clock_retry_in = self._refusals = 0
        self._set_alarm(None)
        return self._act(replace(self._grid.default, sm_clock_mhz=None))

    def _decide(self, window: Window, targets: Targets) -> Decision:
        if self.paused:
            return Decision(self._point, f"{self._point}: paused by the operator")
        return self._policy.decide(window, targets)

    def _held_back(self, window: Window, revenue: Revenue, wishes: Targets, targets: Targets) -> bool:
        """Whether the default setting is to be held now: never against the operator or the device.

        What is compared is how far a window falls short of the most that its images could have earned, so
        that it does not matter how many happened to come.
        """
        if self.holdback is None or self._scored_anew(self.holdback, wishes, targets):
            return False
        if self.paused or self._pinned is not None or self._clock_retry_in:
            self.holdback.abandon()
            return False
        most = most_revenue(targets, window.duration_s, settled_images(window.traffic))
        gained = revenue.total - most
        in_money = revenue.form == "profit"  # the others are averages, whatever the window's length
        self.holdback.observe(window, gained if in_money else gained * window.duration_s)
        return self.holdback.holds

    def _scored_anew(self, holdback: Holdback, wishes: Targets, targets: Targets) -> bool:
        """Whether this window is scored by other targets than the last; then the two cannot be compared.

        A tariff's next price ends the comparison under way. Other wishes of the operator end them all:
        revenue under another form, or at other prices, is of another kind.
        """
        before, self._scored_by = self._scored_by, (wishes, targets)
        if before is None or before == self._scored_by:
            return False
        if wishes == before[0]:
            holdback.abandon()
        else:
            holdback.start_over()
        return True

    def _set_alarm(self, alarm: Alarm | None) -> None:
        if self.paused or self._pinned is not None or self.hear is None:
            alarm = None
        if alarm is None and self._alarm is None:
            return
        self._alarm = alarm
        self._plant.watch(None if alarm is None else alarm.wire, self.hear or _nobody)

    def _window(self, targets: Targets) -> Window:
        opened_s = self._opened_s
        assert opened_s is not None, "the loop was started"  # noqa: S101
        traffic, reading = self._plant.sense(targets.slo_p99_ms)
        self._opened_s = self._clock()
        cut, self._cut = self._cut, None
        return Window(opened_s, self._opened_s, self._point, traffic, reading, cut)

    def _permitted(self, point: OperatingPoint) -> OperatingPoint:
        """Leave the clock out while the device refuses it; afterwards try its default again."""
        if self._clock_retry_in == 0:
            return point
        self._clock_retry_in -= 1
        clock_mhz = None if self._clock_retry_in else self._grid.default.sm_clock_mhz
        return replace(point, sm_clock_mhz=clock_mhz)

    def _act(self, point: OperatingPoint) -> str | None:
        """Apply a setting. Returns a refusal that was not already said."""
        try:
            self._plant.act(point)
        except DeviceError as refusal:
            error = self._refused(point, str(refusal))
            return None if isinstance(refusal, DeviceGone) else error
        self._point = point
        if point.sm_clock_mhz is not None:
            self._refusals = 0
            self._said.clear()
        return None

    def _refused(self, point: OperatingPoint, error: str) -> str | None:
        """Govern without the clock for a while; a clock that was set before must not stay in force unseen."""
        self._point = replace(point, sm_clock_mhz=None)
        if point.sm_clock_mhz is not None:
            steps = CLOCK_RETRY_STEPS[min(self._refusals, len(CLOCK_RETRY_STEPS) - 1)]
            self._clock_retry_in = steps if self._grid.sm_clocks_mhz else 0
            self._refusals += 1
            self._give_clock_back()
        kind = _NUMBERS.sub("#", error)  # the same failure, whatever clock was asked for
        known = kind in self._said
        self._said.add(kind)
        return None if known else error

    def _give_clock_back(self) -> None:
        with suppress(DeviceError):  # the refusal before it is what is said
            self._plant.act(self._point)


def _not_in_force(window: Window, wanted: OperatingPoint) -> bool:
    """Whether a clock is wanted and the last one was not in force: the plant is told again."""
    return wanted.sm_clock_mhz is not None and bool(window.device.clock_not_taken)


def _nobody() -> None:
    """Hear an alarm that is off."""
