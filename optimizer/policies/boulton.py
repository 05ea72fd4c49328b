"""Learns the machine and the traffic, and goes where it predicts the most revenue: Boulton's own policy.

Every second it scores all legal settings on the present load (`landscape`) and takes the best. What keeps it
safe and steady:

- Where nothing was measured it reckons with batches between the expected and the slowest that physics allows,
  the nearer to the slowest the worse such guesses came out before, and tries only what keeps the SLO even
  then. Settings nearly as good as the best are tried once.
  The better such guesses came out, the less it tries. Where averages are scored (all forms but profit), it
  tries as well what promises clearly more if batches take as much less time there as such guesses allow.
- In calm it tries at its clock what waiting for batches to grow saves, where predictions cannot tell.
- The clock moves only when that earns clearly more than to stay, the more clearly the shorter the calm has
  lasted; the delay moves freely. Where loads rise again and again, it stays at the clock for the highest of
  them unless a lower one saves more than the surges then cost.
- Each decision carries an alarm: how many waiting images mean that the present clock is too slow for them.
  Whoever dispatches compares one number, and goes to the fast point within one batch; at a clock that was
  chosen for such a load before, it first only stops waiting for batches to grow. For a window after an alarm
  it does not wait for them either, because the rate that was counted is behind the one that comes.
- What ran last before an alarm tells how slow the clock was, though the window that was cut short does not.
  Where batches were as quick as expected, late answers tell that more must be kept free.
- While more comes than expected it goes to no lower clock: what rises may rise on.
- After an alarm it goes to the clock that was last chosen for such a load, if one is known; otherwise, and
  when answers were late, it stays at the fast point until calm has lasted.
- Where the device holds its clock down, it goes back to what was too slow there the later the more often that
  was in vain; once the device takes its clocks again, as soon as anywhere.
- Late answers that it did not foresee make it keep more of the SLO free; while fewer are late than may be,
  it uses more of the SLO.
- Where a queue keeps batches so large that the power limit slows them, it tries smaller ones.
- When batches take other times than at the same setting before, the machine has changed, and it forgets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optimizer.insight import Insight
from optimizer.models.arrivals import ArrivalModel
from optimizer.models.batch_regime import deviations
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
    LEAST_IMAGES,
    SloWatch,
    clock_in_force_mhz,
    out_of_hand,
    was_in_force,
    why_unfit,
)
from optimizer.policies.landscape import Landscape
from optimizer.policies.policy import Alarm, Decision, Prediction
from optimizer.policies.pooling import Pool
from optimizer.policies.retries import Retries
from optimizer.policies.stronghold import Stronghold
from optimizer.revenue import Targets, late_images, settled_images, window_revenue
from optimizer.surge import Tripwire, surge_wire
from optimizer.telemetry import BatchTimes, EventReason, Window

STATE_VERSION = 1

_SOUNDED = "the alarm was sounded"
_MOST, _PERHAPS_MOST = "earns the most", "may earn the most, and is hardly known"
_HELD = "saves the next surge from being late"
_WORTH_MOVING, _PATIENCE = 0.01, 15.0
"""The gain a change of clock must promise at once; after so many calm windows half of it is enough."""
_WORTH_TRYING = 0.02
"""The gain that a clock must promise to be tried where much is hoped for."""
_HOLD_AFTER_LATE, _HOLD_AFTER_ALARM = 2, 0
_IDLE_WINDOWS = 5
_REST_MARGIN = 1.25
"""What a clock can serve where it never ran is a guess, and at rest a higher clock costs next to nothing."""
_MUCH_LOWER = 0.75
"""As the traffic of before is forgotten, lower clocks would do: it goes there in few steps, not in many."""
_ALTERNATIVES = 4
_LITTLE_LESS, _LITTLE_MORE = 0.7, 1.15
_ALARM_DEVIATIONS = 5.0
_FALSE_ALARM, _MOST_ALARM_DEVIATIONS, _ALARM_CALM = 1.5, 20.0, 0.01
_ALARM_SHARE = 0.8
_KNOWN_MARGIN = 1.05
_LATE_NOTICED = 0.007
_KEPT_AFTER_DRIFT = 0.1
_FAMILIAR = 0.35
_SLOWER = 0.02
"""Beyond what chance does to a batch or two."""
_JAM_WINDOWS, _JAM_STEPS = 2, 3
_MOST_LATE = 0.8
_CLEAR_SAVING = 0.1
"""A delay that is predicted to save more than this is believed to: predictions are not so far off."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A setting on a landscape, and why."""

    row: int
    column: int
    why: str


class BoultonPolicy:
    """Implements `Policy` and `Learner`. See the module for the idea.

    Args:
        grid: the legal settings.
        prior: what was predicted of them; moves the first settings, and gives way to what is measured.
    """

    def __init__(self, grid: OperatingGrid, prior: Prior | None = None) -> None:
        self._grid, self._prior = grid, prior
        self._columns: dict[int | None, int] = {mhz: at for at, mhz in enumerate(grid.sm_clocks_mhz)}
        self._machine = Machine(grid, prior)
        self.forget()

    @property
    def name(self) -> str:
        """Always `boulton`."""
        return "boulton"

    def forget(self) -> None:
        """Start anew, as if nothing had been learned."""
        self._machine.forget()
        self._arrivals = ArrivalModel()
        self._peaks = PeakModel()
        self._clumps, self._requests, self._evenness = ClumpModel(), RequestModel(), EvennessModel()
        self._alarm_deviations = _ALARM_DEVIATIONS
        self._watch = SloWatch()
        self._drift, self._power_drift = DriftDetector(), DriftDetector()
        self._caution = Caution()
        self._pool = Pool()
        self._stronghold = Stronghold()
        self._surprise = Surprise()
        self._both_ways = BothWays()
        self._unknown = 0.0
        self._hold = 0
        self._retries = Retries()
        self._tries = False
        self._idle = self._calm = 0
        self._jammed = 0
        self._surged = self._rising = self._untried = self._slo_bound = self._relieved = False
        self._last_point: OperatingPoint | None = None
        self._decided: Decision | None = None

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Learn from a window and choose the setting for the next."""
        last, self._last_point = self._last_point, window.point
        settled = last is not None and last.sm_clock_mhz == window.point.sm_clock_mhz
        settled = settled or (last is None and self._starts_from(window))
        sounded = self._was_refuge(window)
        if sounded and self._decided_mhz != window.point.sm_clock_mhz:
            settled = False
        missed = self._missed(window)
        settled = settled or missed
        evidence = self._pool.add(window, settled=settled)
        unfit = why_unfit(evidence, settled=settled, least_images=1 if missed else LEAST_IMAGES)
        if missed:
            self._stronghold.lose(window.point.sm_clock_mhz)
        self._caution.count(window)
        before_per_s = self._arrivals.rate_per_s
        surged = self._observe_arrivals(window)
        self._jammed = self._jammed + 1 if _is_jammed(window) else 0
        self._surged = surged and not sounded and before_per_s > 0.0
        from_cut = self._learn_from_cut(window, last)
        if not from_cut and not surged:
            self._learn_from_crowd(window, targets)
        learned = from_cut or self._learn(evidence, targets, unfit, surged=surged)
        trouble = self._trouble(window, targets, surged=surged, sounded=sounded)
        tried = self._tries and (sounded or self._as_decided(window))
        self._retries.observe(window, tried=tried, failed=missed or sounded or trouble is not None)
        self._tries = False
        self._untried = not settled and not surged and not sounded
        self._calm = self._calm + 1 if settled and not surged and not sounded else 0
        relieved = sounded and window.traffic.queued <= window.point.batch_limit
        held = self._decided_mhz == window.point.sm_clock_mhz
        self._rising = sounded
        self._relieved = relieved and (trouble == _SOUNDED or held or self._caution.overspent < 0.0)
        decision = self._choose(window, targets, trouble, learned)
        self._stronghold.observe(self._arrivals.rate_per_s, before_per_s, decision.point.sm_clock_mhz)
        self._decided = decision
        return decision

    def _starts_from(self, window: Window) -> bool:
        """Whether a first window is evidence: nothing else is known, and the clock had not to be set."""
        return not self._machine.ready and was_in_force(window)

    @property
    def _decided_mhz(self) -> int | None:
        return None if self._decided is None else self._decided.point.sm_clock_mhz

    def export_state(self) -> Mapping[str, object]:
        """Return what was learned of the machine, in values that JSON can hold. Traffic is not kept."""
        overhead_ms = self._caution.overhead_ms
        return {
            "version": STATE_VERSION,
            "machine": self._machine.export_state(),
            "overhead_ms": overhead_ms,
        }

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from what `export_state` returned. Raises ValueError, changing nothing, for anything else."""
        machine = Machine(self._grid, self._prior)
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
        self._machine, self._caution = machine, Caution(overhead_ms)

    # Learning

    def _observe_arrivals(self, window: Window) -> bool:
        """Learn the arrivals; True when more came than was to be expected."""
        arrived, duration_s = window.traffic.arrived, window.duration_s
        expected = self._arrivals.cautious_rate_per_s * duration_s
        surged = arrived > expected
        if duration_s > 0.0:
            late = late_images(window.traffic)
            self._peaks.observe(arrived / duration_s, late, window.traffic.completed)
        self._arrivals.observe(arrived, duration_s)
        self._requests.observe(window.traffic)
        self._idle = 0 if arrived else self._idle + 1
        return surged

    def _learn(self, window: Window, targets: Targets, unfit: str | None, *, surged: bool) -> str:
        """Learn the machine from a window that is evidence; say what."""
        if unfit is not None:
            return self._gauge(window) or f"nothing: {unfit}"
        mhz = clock_in_force_mhz(window)
        error = self._machine.error(window, mhz)
        if error is not None and self._drift.observe(
            error, window.point.sm_clock_mhz, familiar=self._unknown < _FAMILIAR
        ):
            self._machine.doubt(_KEPT_AFTER_DRIFT)
        self._machine.learn_times(window.traffic.batches, window.point.sm_clock_mhz, mhz)
        self._compare_ways(window, targets)
        self._evenness.observe(window.traffic, window.duration_s, window.point.max_delay_ms / 1e3)
        if self._power_drifted(window):
            self._machine.doubt_power(_KEPT_AFTER_DRIFT)
        self._machine.learn_power(window, mhz)
        if self._arrivals.steady:  # batches of two rates in one window differ for that alone
            self._clumps.observe(
                window.traffic.batches,
                window.point.batch_limit,
                window.traffic.arrived / window.duration_s,
                window.point.max_delay_ms / 1e3,
            )
        if self._decided is not None and window.point == self._decided.point:
            expected_ms = self._decided.predicted_p99_ms
            self._caution.observe(
                window,
                targets,
                expected_ms,
                surged=surged,
                slo_bound=self._slo_bound,
                hopeless=self._decided.infeasible is not None,
            )
        drifted = ", the machine has changed" if self._drift.found else ""
        first = "first batches" + (", and the level of the prediction" if self._prior is not None else "")
        return first if error is None else f"batches took {error:+.1%} of the expected{drifted}"

    def _learn_from_cut(self, window: Window, last: OperatingPoint | None) -> str:
        """Learn from the batches that ran when an alarm ended a clock; say what.

        Where the clock came down, some may have run while it still was higher: that they took no longer than
        expected then proves nothing, that they took longer does.
        """
        cut = window.cut
        if cut is None or out_of_hand(window):
            return ""
        if _came_up(last, cut.point):
            return ""
        mhz, ran = cut.point.sm_clock_mhz, cut.batches.items()
        slower = {size: times for size, times in ran if self._took_longer(size, times, mhz)}
        error = self._machine.error_of(slower, mhz)
        if error is None:
            return ""
        self._machine.learn_times(slower, mhz, mhz)
        return f"batches took {error:+.1%} of the expected when the alarm was sounded"

    def _learn_from_crowd(self, window: Window, targets: Targets) -> None:
        """Learn from an alarm at the clock decided on that neither batches nor arrivals explain.

        Then images waited longer than was reckoned; without this it would be believed, and tried, again.
        """
        decided, cut = self._decided, window.cut
        if decided is None or cut is None or cut.point.sm_clock_mhz != decided.point.sm_clock_mhz:
            return
        if _many_are_late(window):
            self._caution.crowded(window, targets, decided.predicted_p99_ms)

    def _took_longer(self, size: int, times: BatchTimes, mhz: int | None) -> bool:
        error = self._machine.error_of({size: times}, mhz)
        return error is not None and error > _SLOWER

    def _compare_ways(self, window: Window, targets: Targets) -> None:
        """Take in what an image cost with, or without, a delay; of no use where energy is not measured."""
        if window.device.energy.joules is not None and window.traffic.arrived:
            cost = -window_revenue(targets, window).total / window.traffic.arrived
            self._both_ways.observe(window.point.sm_clock_mhz, cost, delayed=window.point.max_delay_ms > 0.0)

    def _gauge(self, window: Window) -> str:
        """Let the first window of all give the prior its level; say so."""
        if self._machine.ready or why_unfit(window, settled=True) is not None:
            return ""
        self._machine.gauge(window, clock_in_force_mhz(window))
        return "the level of the prediction, from a first window" if self._machine.ready else ""

    def _power_drifted(self, window: Window) -> bool:
        """Whether the power at the setting decided on is persistently another than was expected there."""
        decided, joules = self._decided, window.device.energy.joules
        if decided is None or window.point != decided.point or not decided.predicted_power_w or not joules:
            return False
        error = joules / window.duration_s / decided.predicted_power_w - 1.0
        self._surprise.observe(error, self._unknown)
        return self._power_drift.observe(error, window.point.sm_clock_mhz)

    def _missed(self, window: Window) -> bool:
        """Whether answers were late at the setting decided on.

        A clock that is left for that at once must teach all the same, or it would be tried for ever.
        """
        return self._as_decided(window) and _many_are_late(window)

    def _as_decided(self, window: Window) -> bool:
        return self._decided is not None and window.point == self._decided.point

    # Choosing

    def _trouble(self, window: Window, targets: Targets, *, surged: bool, sounded: bool) -> str | None:
        """Say what is wrong, and for how long to stay at the fast point; None when all is well."""
        late = self._watch.trouble(window, targets, surged=surged or sounded)
        self._alarm_deviations += _ALARM_CALM * (_ALARM_DEVIATIONS - self._alarm_deviations)
        if not sounded:
            self._hold = _HOLD_AFTER_LATE if late is not None else self._hold
            return late
        if surged or late is not None:
            self._hold = _HOLD_AFTER_ALARM
            return late or _SOUNDED
        self._alarm_deviations = min(_MOST_ALARM_DEVIATIONS, _FALSE_ALARM * self._alarm_deviations)
        return None

    def _was_refuge(self, window: Window) -> bool:
        """Whether the alarm was sounded in this window."""
        if self._decided is None or self._decided.alarm is None or window.point == self._decided.point:
            return False
        alarm = self._decided.alarm
        return window.point == alarm.refuge or (alarm.then is not None and window.point == alarm.then.refuge)

    def _choose(self, window: Window, targets: Targets, trouble: str | None, learned: str) -> Decision:
        point = window.point
        if not self._machine.ready:
            return Decision(self._start(point), f"{self._start(point)}: nothing learned yet", learned=learned)
        requests = self._requests
        dispersion = max(self._clumps.dispersion, requests.dispersion(self._evenness.dispersion))
        rate = self._arrivals.expected_per_s
        shape = self._evenness.shape
        load = Load(rate, dispersion, requests.images, requests.own_images, requests.largest, shape)
        held = self._stronghold
        margins = self._caution.margins(self._peaks.rate_per_s, held.rate_per_s, held.surges_per_window)
        land = Landscape(self._grid, self._machine, load, targets, margins)
        self._slo_bound = land.slo_binds
        if point.sm_clock_mhz is None and self._grid.sm_clocks_mhz:
            choice = _Choice(*land.best_at(len(self._grid.sm_clocks_mhz) - 1), "the clock cannot be set")
            return _without_clock(self._decision(land, choice, targets, learned))
        choice = self._choice(land, point, trouble)
        self._unknown = 1.0 - float(land.tables.known[choice.row, choice.column])
        return self._decision(land, choice, targets, learned)

    def _choice(self, land: Landscape, point: OperatingPoint, trouble: str | None) -> _Choice:
        if trouble is not None:
            return self._refuge(land, trouble)
        if self._hold > 0:
            self._hold -= 1
            return self._fast(land, "waits for calm to last")
        column = self._column(point)
        if self._idle >= _IDLE_WINDOWS:
            return _Choice(0, self._resting_column(land, column), "nothing arrives")
        if self._retries.must_wait:
            return self._fast(land, "the device held its clock down: waits before it tries a lower one")
        self._tries = True
        if self._untried:
            return _Choice(land.best_row(column), column, "the clock was just set: waits for what it does")
        choice, here = self._best(land, column), land.best_at(column)
        if self._surged and choice.column < column and math.isfinite(land.cost_per_s(*here)):
            choice = _Choice(*here, "more came than expected: goes to no lower clock now")
        if self._rising and choice.row != land.greedy_row(choice.column):
            row = land.greedy_row(choice.column)
            return _Choice(row, choice.column, "still more may come: does not wait for batches to grow")
        return choice if choice.column != column else self._without_delay(land, choice)

    def _without_delay(self, land: Landscape, choice: _Choice) -> _Choice:
        """Leave a delay out whose saving is small and was not found, or is still to be looked for."""
        row, column = land.greedy_row(choice.column), choice.column
        self._both_ways.ask(land.clock_mhz(column), self._arrivals.rate_per_s)
        cost = land.cost_per_s(choice.row, column)
        saving = land.cost_per_s(row, column) - cost
        if row == choice.row or saving > _CLEAR_SAVING * abs(cost):
            return choice
        if self._both_ways.pays is False:
            return _Choice(row, column, "to wait was measured to save nothing")
        if self._both_ways.untried:
            return _Choice(row, column, "tries not to wait")
        return choice

    def _best(self, land: Landscape, column: int) -> _Choice:
        """Return the setting that earns the most; at the present clock, unless another earns clearly more."""
        promising = land.most_promising(self._surprise.share)
        row, best = self._held_through(land, *promising)
        why = _HELD if best != promising[1] else _MOST if best == land.best()[1] else _PERHAPS_MOST
        here = land.best_at(column)
        here_cost, cost = land.cost_per_s(*here), land.cost_per_s(row, best)
        if best == column:
            return _Choice(row, best, why)
        enough = _WORTH_MOVING / (1.0 + self._calm / _PATIENCE) * abs(here_cost)
        if math.isinf(here_cost) or here_cost - cost > enough:
            return _Choice(row, best, why)
        if land.hopes:
            enough = max(enough, _WORTH_TRYING * abs(here_cost))
        if here_cost - land.least_cost_per_s(best, self._surprise.share) > enough:
            return _Choice(row, best, "may earn more, and was never tried")
        return _Choice(*here, "no other clock earns clearly more")

    def _held_through(self, land: Landscape, row: int, column: int) -> tuple[int, int]:
        """Return this setting, or that for the next surge where the lower clock saves less than surges cost.

        Each surge that finds the clock too low costs about a window at the fast point.
        """
        strong = self._strong_column(land)
        if not column < strong < land.fast_column:
            return row, column
        held = land.best_at(strong)
        at_fast = land.revenue_per_s(land.greedy_row(land.fast_column), land.fast_column)
        a_surge = land.revenue_per_s(*held) - at_fast
        risk = self._stronghold.surges_per_window * max(0.0, a_surge)
        return held if land.cost_per_s(*held) < land.cost_per_s(row, column) + risk else (row, column)

    def _fast(self, land: Landscape, why: str) -> _Choice:
        column = land.fast_column
        return _Choice(
            0 if math.isinf(land.cost_per_s(*land.best_at(column))) else land.greedy_row(column), column, why
        )

    def _refuge(self, land: Landscape, why: str) -> _Choice:
        """Go to the clock that is known to hold such a load, if no more is wrong; else to the fast point."""
        column = self._strong_column(land)
        usable = column < land.fast_column and not math.isinf(land.cost_per_s(*land.best_at(column)))
        if self._relieved and usable:
            return _Choice(land.greedy_row(column), column, why)
        return self._fast(land, why)

    def _resting_column(self, land: Landscape, column: int) -> int:
        """Return the lowest clock that could take up the traffic of before, should it come back."""
        needed = _REST_MARGIN * self._arrivals.peak_rate_per_s
        clocks_mhz = self._grid.sm_clocks_mhz or (1,)
        enough = [
            at
            for at in range(len(clocks_mhz))
            if land.capacity_per_s(at) >= needed and land.rests_in_time(at)
        ]
        lowest = enough[0] if enough else column
        hardly_lower = clocks_mhz[lowest] > _MUCH_LOWER * clocks_mhz[column]
        return column if self._idle > _IDLE_WINDOWS and column in enough and hardly_lower else lowest

    def _decision(self, land: Landscape, choice: _Choice, targets: Targets, learned: str) -> Decision:
        others = [place for place in land.top(_ALTERNATIVES + 1) if place[1] != choice.column]
        possible = [place for place in others if not math.isinf(land.cost_per_s(*place))]
        best, *rivals = land.predictions([(choice.row, choice.column), *possible[:_ALTERNATIVES]])
        chosen = self._unjammed(self._steadied(best))
        rival = rivals[0] if rivals else None
        infeasible = self._infeasible(land, targets, chosen)
        return Decision(
            point=chosen.point,
            reason=self._reason(choice.why, chosen, rival, infeasible, targets.form),
            predicted_revenue_per_s=chosen.revenue_per_s,
            predicted_p99_ms=chosen.p99_ms,
            predicted_power_w=chosen.power_w,
            runner_up=rival.point if rival else None,
            runner_up_revenue_per_s=rival.revenue_per_s if rival else None,
            alarm=self._alarm(land, choice, chosen.point),
            alternatives=tuple(rivals),
            infeasible=infeasible,
            learned=learned,
        )

    def _steadied(self, prediction: Prediction) -> Prediction:
        """Keep the present batch limit where the best differs little: that is what noise does to it."""
        point, now = prediction.point, self._last_point
        if (
            now is None
            or now.batch_limit == point.batch_limit
            or not _LITTLE_LESS * point.batch_limit <= now.batch_limit <= _LITTLE_MORE * point.batch_limit
            or now.batch_limit < self._requests.largest <= point.batch_limit
        ):
            return prediction
        return replace(prediction, point=replace(point, batch_limit=now.batch_limit))

    def _unjammed(self, prediction: Prediction) -> Prediction:
        """Try smaller batches where large ones keep a queue for ever: these may run at a higher clock."""
        halvings = self._jammed // _JAM_WINDOWS % _JAM_STEPS
        if not halvings:
            return prediction
        limits, wanted = self._grid.batch_limits, prediction.point.batch_limit >> halvings
        limit = limits[max(0, bisect_right(limits, wanted) - 1)]
        return replace(prediction, point=replace(prediction.point, batch_limit=limit))

    def _alarm(self, land: Landscape, choice: _Choice, point: OperatingPoint) -> Alarm | None:
        """Go to the fast point; but first only stop waiting, at a clock that held such a load before."""
        fast = land.fast_column
        if land.clock_mhz(fast) == point.sm_clock_mhz:
            return None
        to_fast = land.point(land.greedy_row(fast), fast)
        soon = self._wire(land, choice.row, choice.column, self._arrivals.cautious_rate_per_s)
        if choice.column < self._strong_column(land):
            return Alarm(soon, to_fast)
        row = land.greedy_row(choice.column)
        late = Alarm(self._wire(land, row, choice.column, self._known_rate), to_fast)
        return Alarm(soon, replace(point, max_delay_ms=0.0), late) if point.max_delay_ms else late

    @property
    def _known_rate(self) -> float:
        """Images a second that the stronghold hardly sees exceeded."""
        return max(self._arrivals.cautious_rate_per_s, _KNOWN_MARGIN * self._stronghold.rate_per_s)

    def _strong_column(self, land: Landscape) -> int:
        """Return the clock that held the highest load of late, or a lower one that will; or the fast one."""
        strong = self._columns.get(self._stronghold.clock_mhz)
        return land.fast_column if strong is None else land.holds_surge(min(land.fast_column, strong))

    def _wire(self, land: Landscape, row: int, column: int, expected_per_s: float) -> Tripwire:
        """Trip when more wait than this clock can answer in time or chance explains, or when more come."""
        slack_s = max(0.0, _ALARM_SHARE * land.spare_s - land.steady_batch_s(column))
        usual = deviations(land.mean_images(row), self._arrivals.dispersion, self._alarm_deviations) + 1.0
        bearable = land.capacity_per_s(column)
        queued = math.ceil(max(usual, bearable * slack_s))
        scale = (self._alarm_deviations / _ALARM_DEVIATIONS) ** 2
        return surge_wire(queued, expected_per_s, bearable, scale)

    def _infeasible(self, land: Landscape, targets: Targets, chosen: Prediction) -> str | None:
        if land.feasible:
            return None
        wanted = f"SLO {targets.slo_p99_ms:g} ms"
        if targets.power_cap_w is not None:
            wanted += f" under {targets.power_cap_w:g} W"
        rate = self._arrivals.expected_per_s
        form = targets.form
        return f"{wanted} cannot be kept at {rate:.0f} images/s; expects {_text(chosen, form)} at best"

    def _reason(
        self, why: str, chosen: Prediction, rival: Prediction | None, infeasible: str | None, form: str
    ) -> str:
        load = f"{self._arrivals.expected_per_s:.0f} images/s"
        against = f"; next best {rival.point}: {_text(rival, form)}" if rival else ""
        why = why if infeasible is None else f"{why}; {infeasible}"
        return f"{chosen.point}: {why}; on {load} expects {_text(chosen, form)}{against}"

    def _start(self, point: OperatingPoint) -> OperatingPoint:
        return replace(
            self._grid.default, sm_clock_mhz=point.sm_clock_mhz and self._grid.default.sm_clock_mhz
        )

    def _column(self, point: OperatingPoint) -> int:
        return self._columns.get(point.sm_clock_mhz, max(0, len(self._columns) - 1))

    def insight(self) -> Insight:
        """Tell what was learned, for a person to read."""
        machine = self._machine
        return Insight(
            tried=machine.tried(),
            idle_power_w=machine.idle_w if machine.knows_power else None,
            doubt=machine.doubt_share,
            overhead_ms=self._caution.overhead_ms,
            rate_per_s=self._arrivals.rate_per_s,
            burstiness=self._clumps.dispersion,
            unevenness=self._arrivals.dispersion,
        )


def _came_up(last: OperatingPoint | None, now: OperatingPoint) -> bool:
    """Whether the clock was lower before, or may have been: then the first batches may say too much of it."""
    before_mhz = None if last is None else last.sm_clock_mhz
    return before_mhz is None or now.sm_clock_mhz is None or before_mhz < now.sm_clock_mhz


def _is_jammed(window: Window) -> bool:
    """Whether nearly all are late behind a queue, in batches so large that the power limit slows them down.

    The queue keeps the batches large, and the slow batches the queue: that does not end by itself.
    """
    traffic, capped = window.traffic, EventReason.SW_POWER_CAP in window.device.event_reasons
    most_late = late_images(traffic) > _MOST_LATE * settled_images(traffic)
    return capped and most_late and traffic.queued > window.point.batch_limit // 2


def _without_clock(decision: Decision) -> Decision:
    """The same for a device that refuses to set its clock: only what the batches can do."""
    point = replace(decision.point, sm_clock_mhz=None)
    return replace(
        decision, point=point, alarm=None, runner_up=None, runner_up_revenue_per_s=None, alternatives=()
    )


def _text(prediction: Prediction, form: str) -> str:
    """Read as `1.23456/h, p99 12.3 ms, 143 W`; but for profit as `edp -0.000123456, p99 12.3 ms, 143 W`."""
    power = "power not measured" if prediction.power_w is None else f"{prediction.power_w:.0f} W"
    worth = prediction.revenue_per_s
    score = f"{worth * 3600:.6g}/h" if form == "profit" else f"{form} {worth:.6g}"
    return f"{score}, p99 {prediction.p99_ms:.1f} ms, {power}"


def _many_are_late(window: Window) -> bool:
    return late_images(window.traffic) > _LATE_NOTICED * window.traffic.completed + 2.0
