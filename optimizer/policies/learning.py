"""What windows teach: about the machine, the traffic, and how far predictions can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optimizer.models.arrivals import ArrivalModel
from optimizer.models.clumping import ClumpModel, RequestModel
from optimizer.models.drift import DriftDetector
from optimizer.models.evenness import EvennessModel
from optimizer.models.load import Load
from optimizer.models.machine import Machine
from optimizer.models.prior import Prior
from optimizer.models.surges import PeakModel
from optimizer.models.surprise import Surprise
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.both_ways import BothWays
from optimizer.policies.caution import Caution
from optimizer.policies.evidence import (
    clock_in_force_mhz,
    enough_of,
    latest_arrivals,
    out_of_hand,
    why_unfit,
)
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets, late_images, window_revenue
from optimizer.telemetry import BatchTimes, Window

STATE_VERSION = 1

_KEPT_AFTER_DRIFT = 0.1
_FAMILIAR = 0.35
_SLOWER = 0.02
"""Beyond what chance does to a batch or two."""
_LATE_NOTICED = 0.007


class Experience:
    """Everything learned, of models that each know one thing.

    Args:
        machine: what is known of it already.
        foreseen: whether it starts from a prediction.
    """

    def __init__(self, machine: Machine, *, foreseen: bool) -> None:
        self._foreseen = foreseen
        self.machine, self.caution = machine, Caution()
        self.arrivals, self.peaks = ArrivalModel(), PeakModel()
        self.clumps, self.requests, self.evenness = ClumpModel(), RequestModel(), EvennessModel()
        self.surprise, self.both_ways = Surprise(), BothWays()
        self._drift, self._power_drift = DriftDetector(), DriftDetector()
        self.novelty = 0.0
        """How far from anything measured the setting is that was decided on, 0 to 1."""
        self.slo_bound = False
        """Whether it was chosen because of the SLO: late answers would have earned more."""

    @property
    def load(self) -> Load:
        """What is expected to arrive."""
        requests = self.requests
        dispersion = max(self.clumps.dispersion, requests.dispersion(self.evenness.dispersion))
        return Load(
            self.arrivals.expected_per_s,
            dispersion,
            requests.images,
            requests.own_images,
            requests.largest,
            self.evenness.shape,
        )

    def observe_arrivals(self, window: Window) -> bool:
        """Learn the arrivals; True when more came than was to be expected."""
        arrived, duration_s = latest_arrivals(window)
        expected = self.arrivals.cautious_rate_per_s * duration_s
        surged = arrived > expected
        if duration_s > 0.0:
            late = late_images(window.traffic)
            self.peaks.observe(arrived / duration_s, late, window.traffic.completed)
        self.arrivals.observe(arrived, duration_s)
        self.requests.observe(window.traffic)
        return surged

    def learn(
        self, window: Window, targets: Targets, unfit: str | None, decided: Decision | None, *, surged: bool
    ) -> str:
        """Learn the machine from a window that is evidence; say what.

        Args:
            window: what was measured.
            targets: what it was worth.
            unfit: why it is no evidence; None when it is.
            decided: the last decision.
            surged: whether more came than was to be expected.
        """
        if unfit is not None:
            return self._gauge(window) or f"nothing: {unfit}"
        mhz = clock_in_force_mhz(window)
        error = self.machine.error(window, mhz)
        if error is not None and self._drift.observe(
            error, window.point.sm_clock_mhz, familiar=self.novelty < _FAMILIAR
        ):
            self.machine.doubt(_KEPT_AFTER_DRIFT)
        self.machine.learn_times(window.traffic.batches, window.point.sm_clock_mhz, mhz)
        self._compare_ways(window, targets)
        self.evenness.observe(window.traffic, window.duration_s, window.point.max_delay_ms / 1e3)
        if decided is not None and window.point == decided.point and self._power_drifted(window, decided):
            self.machine.doubt_power(_KEPT_AFTER_DRIFT)
        self.machine.learn_power(window, mhz)
        self._observe_clumps(window)
        if decided is not None and window.point == decided.point:
            self._judge(window, targets, decided, surged=surged)
        drifted = ", the machine has changed" if self._drift.found else ""
        first = "first batches" + (", and the level of the prediction" if self._foreseen else "")
        return first if error is None else f"batches took {error:+.1%} of the expected{drifted}"

    def _observe_clumps(self, window: Window) -> None:
        """Learn how batches scatter; of batches of two rates in one window they differ for that alone."""
        if self.arrivals.steady:
            self.clumps.observe(
                window.traffic.batches,
                window.point.batch_limit,
                window.traffic.arrived / window.duration_s,
                window.point.max_delay_ms / 1e3,
            )

    def _judge(self, window: Window, targets: Targets, decided: Decision, *, surged: bool) -> None:
        self.caution.observe(
            window,
            targets,
            decided.predicted_p99_ms,
            surged=surged,
            slo_bound=self.slo_bound,
            hopeless=decided.infeasible is not None,
        )

    def learn_from_cut(self, window: Window, last: OperatingPoint | None) -> str:
        """Learn from the batches that ran when an alarm ended a clock; say what.

        Where the clock came down, some may have run while it still was higher: that they took no longer than
        expected then proves nothing, that they took longer does.
        """
        cut = window.cut
        if cut is None or out_of_hand(window) or _came_up(last, cut.point):
            return ""
        mhz, ran = cut.point.sm_clock_mhz, cut.batches.items()
        slower = {size: times for size, times in ran if self._took_longer(size, times, mhz)}
        error = self.machine.error_of(slower, mhz)
        if error is None:
            return ""
        self.machine.learn_times(slower, mhz, mhz)
        return f"batches took {error:+.1%} of the expected when the alarm was sounded"

    def learn_from_crowd(self, window: Window, targets: Targets, decided: Decision | None) -> None:
        """Learn from an alarm at the clock decided on that neither batches nor arrivals explain.

        Then images waited longer than was reckoned; without this it would be believed, and tried, again.
        """
        cut = window.cut
        if decided is None or cut is None or cut.point.sm_clock_mhz != decided.point.sm_clock_mhz:
            return
        if many_are_late(window):
            self.caution.crowded(window, targets, decided.predicted_p99_ms)

    def _took_longer(self, size: int, times: BatchTimes, mhz: int | None) -> bool:
        error = self.machine.error_of({size: times}, mhz)
        return error is not None and error > _SLOWER

    def _compare_ways(self, window: Window, targets: Targets) -> None:
        """Take in what an image cost with, or without, a delay; of no use where energy is not measured."""
        if window.device.energy.joules is not None and window.traffic.arrived:
            cost = -window_revenue(targets, window).total / window.traffic.arrived
            self.both_ways.observe(window.point.sm_clock_mhz, cost, delayed=window.point.max_delay_ms > 0.0)

    def _gauge(self, window: Window) -> str:
        """Let the first window of all give the prior its level; say so."""
        if self.machine.ready or why_unfit(window, settled=True, enough=enough_of(begun=False)):
            return ""
        self.machine.gauge(window, clock_in_force_mhz(window))
        return "the level of the prediction, from a first window" if self.machine.ready else ""

    def _power_drifted(self, window: Window, decided: Decision) -> bool:
        """Whether the power at the setting decided on is persistently another than was expected there."""
        joules = window.device.energy.joules
        if not decided.predicted_power_w or not joules:
            return False
        error = joules / window.duration_s / decided.predicted_power_w - 1.0
        self.surprise.observe(error, self.novelty)
        return self._power_drift.observe(error, window.point.sm_clock_mhz)

    def export_state(self) -> Mapping[str, object]:
        """Return what was learned of the machine, in values that JSON can hold. Traffic is not kept."""
        overhead_ms = self.caution.overhead_ms
        return {
            "version": STATE_VERSION,
            "machine": self.machine.export_state(),
            "overhead_ms": overhead_ms,
        }


def restored(grid: OperatingGrid, prior: Prior | None, state: Mapping[str, Any]) -> tuple[Machine, Caution]:
    """Return what was exported as a state. Raises ValueError for anything else."""
    machine = Machine(grid, prior)
    try:
        if state["version"] != STATE_VERSION:
            raise ValueError(f"version {state['version']} of the learned state; expected {STATE_VERSION}")
        machine.import_state(state["machine"])
        if machine.ready:
            machine.tables()
        overhead_ms = float(state.get("overhead_ms", 0.0))  # states of before have none
        if not math.isfinite(overhead_ms):
            raise ValueError(f"an overhead of {overhead_ms} ms")
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"not a learned state: {error!r}") from error
    return machine, Caution(overhead_ms)


def many_are_late(window: Window) -> bool:
    """Whether more answers were late than are allowed, and not by chance alone."""
    return late_images(window.traffic) > _LATE_NOTICED * window.traffic.completed + 2.0


def _came_up(last: OperatingPoint | None, now: OperatingPoint) -> bool:
    """Whether the clock was lower before, or may have been: then the first batches may say too much of it."""
    before_mhz = None if last is None else last.sm_clock_mhz
    return before_mhz is None or now.sm_clock_mhz is None or before_mhz < now.sm_clock_mhz
