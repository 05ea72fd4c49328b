"""Learns the machine and the traffic, and goes where it predicts the most revenue: Boulton's own policy.

Every second it scores all legal settings on the present load (`landscape`) and takes the best. What keeps it
safe and steady:

- Where nothing was measured it reckons with batches between the expected and the slowest that physics allows,
  the nearer to the slowest the worse such guesses came out before, and tries only what keeps the SLO even
  then. Settings nearly as good as the best are tried once.
  The better such guesses came out, the less it tries. Where averages are scored (all forms but profit), it
  tries as well what promises clearly more if batches take as much less time there as such guesses allow.
- In calm it tries at its clock what waiting for batches to grow saves, where predictions cannot tell.
- While a clock comes up batches wait no longer than before: until it is in force they run as slowly.
- The clock moves only when that earns clearly more than to stay, the more clearly the shorter the calm has
  lasted; the delay moves freely. Where loads rise again and again, it stays at the clock for the highest of
  them unless a lower one saves more than the surges then cost, or may well save more and was never tried.
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
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optimizer.insight import Insight
from optimizer.models.machine import Machine
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.alarms import Alarms
from optimizer.policies.choosing import Choice, Options
from optimizer.policies.evidence import SloWatch, enough_of, was_in_force, why_unfit
from optimizer.policies.jam import Jam
from optimizer.policies.landscape import Landscape
from optimizer.policies.learning import Experience, many_are_late, restored
from optimizer.policies.policy import Decision, Prediction
from optimizer.policies.pooling import Pool
from optimizer.policies.retries import Retries
from optimizer.policies.stronghold import Stronghold
from optimizer.policies.wording import reason, why_infeasible
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_SOUNDED = "the alarm was sounded"
_HOLD_AFTER_LATE, _HOLD_AFTER_ALARM = 2, 0
_IDLE_WINDOWS = 5
_ALTERNATIVES = 4
_LITTLE_LESS, _LITTLE_MORE = 0.7, 1.15
_CLEAR_SAVING = 0.1
"""A delay that is predicted to save more than this is believed to: predictions are not so far off."""


class BoultonPolicy:
    """Implements `Policy` and `Learner`. See the module for the idea.

    Args:
        grid: the legal settings.
        prior: what was predicted of them; moves the first settings, and gives way to what is measured.
    """

    def __init__(self, grid: OperatingGrid, prior: Prior | None = None) -> None:
        self._grid, self._prior = grid, prior
        self._columns: dict[int | None, int] = {mhz: at for at, mhz in enumerate(grid.sm_clocks_mhz)}
        self._known = Experience(Machine(grid, prior), foreseen=prior is not None)
        self.forget()

    @property
    def name(self) -> str:
        """Always `boulton`."""
        return "boulton"

    def forget(self) -> None:
        """Start anew, as if nothing had been learned."""
        self._known.machine.forget()
        self._known = Experience(self._known.machine, foreseen=self._prior is not None)
        self._alarms = Alarms(self._known.arrivals)
        self._watch, self._pool, self._jam = SloWatch(), Pool(), Jam()
        self._stronghold = Stronghold()
        self._hold = 0
        self._retries = Retries()
        self._tries = False
        self._idle = self._calm = 0
        self._surged = self._rising = self._untried = self._relieved = False
        self._last_point: OperatingPoint | None = None
        self._decided: Decision | None = None

    def export_state(self) -> Mapping[str, object]:
        """Return what was learned of the machine, in values that JSON can hold. Traffic is not kept."""
        return self._known.export_state()

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from what `export_state` returned. Raises ValueError, changing nothing, for anything else."""
        self._known.machine, self._known.caution = restored(self._grid, self._prior, state)

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Learn from a window and choose the setting for the next."""
        last, self._last_point = self._last_point, window.point
        before_per_s = self._known.arrivals.rate_per_s
        sounded, missed = self._was_refuge(window), self._missed(window)
        settled = self._settled(window, last, sounded=sounded) or missed
        surged, learned = self._learn(window, targets, last, settled=settled, missed=missed)
        trouble = self._trouble(window, targets, surged=surged, sounded=sounded)
        tried = self._tries and (sounded or self._as_decided(window))
        self._retries.observe(window, tried=tried, failed=missed or sounded or trouble is not None)
        self._tries = False
        self._surged = surged and not sounded and before_per_s > 0.0
        self._rising = sounded
        self._relieved = sounded and self._is_relieved(window, trouble)
        self._count(window, settled=settled, calm=not surged and not sounded)
        self._decided = decision = self._choose(window, targets, trouble, learned)
        rate_per_s = self._known.arrivals.rate_per_s
        self._stronghold.observe(rate_per_s, before_per_s, decision.point.sm_clock_mhz)
        return decision

    def _learn(
        self, window: Window, targets: Targets, last: OperatingPoint | None, *, settled: bool, missed: bool
    ) -> tuple[bool, str]:
        """Learn from a window; return whether more came than was to be expected, and what was learned."""
        known, decided = self._known, self._decided
        enough = enough_of(begun=known.machine.ready, missed=missed)
        evidence = self._pool.add(window, settled=settled, enough=enough)
        unfit = why_unfit(evidence, settled=settled, enough=enough)
        if missed:
            self._stronghold.lose(window.point.sm_clock_mhz)
        known.caution.count(window)
        surged = known.observe_arrivals(window)
        from_cut = known.learn_from_cut(window, last)
        if not from_cut and not surged:
            known.learn_from_crowd(window, targets, decided)
        return surged, from_cut or known.learn(evidence, targets, unfit, decided, surged=surged)

    def _count(self, window: Window, *, settled: bool, calm: bool) -> None:
        """Count windows: without images, in a jam, in calm; and see whether the clock has yet to be tried."""
        self._idle = 0 if window.traffic.arrived else self._idle + 1
        self._jam.observe(window)
        self._untried = calm and (not settled or (self._untried and self._pool.collects))
        self._calm = self._calm + 1 if settled and calm else 0

    # What a window was

    def _settled(self, window: Window, last: OperatingPoint | None, *, sounded: bool) -> bool:
        """Whether the clock was set before the window began, or had not to be and nothing else is known."""
        if sounded and not self._at_decided_clock(window):
            return False
        if last is None:
            return not self._known.machine.ready and was_in_force(window)
        return last.sm_clock_mhz == window.point.sm_clock_mhz

    def _missed(self, window: Window) -> bool:
        """Whether answers were late at the setting decided on.

        A clock that is left for that at once must teach all the same, or it would be tried for ever.
        """
        return self._as_decided(window) and many_are_late(window)

    def _as_decided(self, window: Window) -> bool:
        return self._decided is not None and window.point == self._decided.point

    def _at_decided_clock(self, window: Window) -> bool:
        decided_mhz = None if self._decided is None else self._decided.point.sm_clock_mhz
        return decided_mhz == window.point.sm_clock_mhz

    def _was_refuge(self, window: Window) -> bool:
        """Whether the alarm was sounded in this window."""
        if self._decided is None or self._decided.alarm is None or window.point == self._decided.point:
            return False
        alarm = self._decided.alarm
        return window.point == alarm.refuge or (alarm.then is not None and window.point == alarm.then.refuge)

    def _is_relieved(self, window: Window, trouble: str | None) -> bool:
        """Whether what an alarm brought was enough, so that the fast point need not be gone to."""
        if window.traffic.queued > window.point.batch_limit:
            return False
        spent = self._known.caution.overspent
        return trouble == _SOUNDED or self._at_decided_clock(window) or spent < 0.0

    def _trouble(self, window: Window, targets: Targets, *, surged: bool, sounded: bool) -> str | None:
        """Say what is wrong, and for how long to stay at the fast point; None when all is well."""
        late = self._watch.trouble(window, targets, surged=surged or sounded)
        self._alarms.calm_down()
        if not sounded:
            self._hold = _HOLD_AFTER_LATE if late is not None else self._hold
            return late
        if surged or late is not None:
            self._hold = _HOLD_AFTER_ALARM
            return late or _SOUNDED
        self._alarms.was_false()
        return None

    # What to do

    def _choose(self, window: Window, targets: Targets, trouble: str | None, learned: str) -> Decision:
        point, known = window.point, self._known
        if not known.machine.ready:
            start = self._start(point)
            return Decision(start, f"{start}: nothing learned yet", learned=learned)
        held = self._stronghold
        margins = known.caution.margins(known.peaks.rate_per_s, held.rate_per_s, held.surges_per_window)
        land = Landscape(self._grid, known.machine, known.load, targets, margins)
        known.slo_bound = land.slo_binds
        strong = self._strong_column(land)
        if point.sm_clock_mhz is None and self._grid.sm_clocks_mhz:
            choice = Choice(*land.best_at(len(self._grid.sm_clocks_mhz) - 1), "the clock cannot be set")
            return _without_clock(self._decision(land, choice, targets, learned, strong))
        column = self._columns.get(point.sm_clock_mhz, max(0, len(self._columns) - 1))
        curiosity = known.surprise.share
        options = Options(land, column, strong, held.surges_per_window, curiosity, self._calm)
        choice = self._choice(options, trouble)
        known.novelty = 1.0 - float(land.tables.known[choice.row, choice.column])
        return self._decision(land, choice, targets, learned, strong)

    def _choice(self, options: Options, trouble: str | None) -> Choice:
        if trouble is not None:
            return options.refuge(trouble, relieved=self._relieved)
        if self._hold > 0:
            self._hold -= 1
            return options.fast("waits for calm to last")
        if self._idle >= _IDLE_WINDOWS:
            peak_per_s = self._known.arrivals.peak_rate_per_s
            return options.resting(peak_per_s, already=self._idle > _IDLE_WINDOWS)
        if self._retries.must_wait:
            return options.fast("the device held its clock down: waits before it tries a lower one")
        self._tries = True
        if self._untried and options.land.holds(options.column):
            return options.here("the clock was just set: waits for what it does")
        return self._steadily(options, options.best())

    def _steadily(self, options: Options, choice: Choice) -> Choice:
        """Return the best as long as no more comes; while more does, no lower clock, and no waiting."""
        land, column = options.land, options.column
        here = land.best_at(column)
        if self._surged and choice.column < column and land.holds(column):
            choice = Choice(*here, "more came than expected: goes to no lower clock now")
        if self._rising and choice.row != land.greedy_row(choice.column):
            row = land.greedy_row(choice.column)
            return Choice(row, choice.column, "still more may come: does not wait for batches to grow")
        return choice if choice.column != column else self._without_delay(land, choice)

    def _without_delay(self, land: Landscape, choice: Choice) -> Choice:
        """Leave a delay out whose saving is small and was not found, or is still to be looked for."""
        row, column, ways = land.greedy_row(choice.column), choice.column, self._known.both_ways
        ways.ask(land.clock_mhz(column), self._known.arrivals.rate_per_s)
        cost = land.cost_per_s(choice.row, column)
        saving = land.cost_per_s(row, column) - cost
        if row == choice.row or saving > _CLEAR_SAVING * abs(cost):
            return choice
        if ways.pays is False:
            return Choice(row, column, "to wait was measured to save nothing")
        if ways.untried:
            return Choice(row, column, "tries not to wait")
        return choice

    def _strong_column(self, land: Landscape) -> int:
        """Return the clock that held the highest load of late, or a lower one that will; or the fast one."""
        strong = self._columns.get(self._stronghold.clock_mhz)
        return land.fast_column if strong is None else land.holds_surge(min(land.fast_column, strong))

    def _decision(
        self, land: Landscape, choice: Choice, targets: Targets, learned: str, strong: int
    ) -> Decision:
        place, rate_per_s = (choice.row, choice.column), self._known.arrivals.expected_per_s
        others = [other for other in land.top(_ALTERNATIVES + 1) if other[1] != choice.column]
        possible = [other for other in others if not math.isinf(land.cost_per_s(*other))]
        best, *rivals = land.predictions([place, *possible[:_ALTERNATIVES]])
        chosen = self._within_limits(best)
        rival = rivals[0] if rivals else None
        infeasible = None if land.feasible else why_infeasible(targets, rate_per_s, chosen)
        held_per_s = self._stronghold.rate_per_s
        return Decision(
            point=chosen.point,
            reason=reason(choice.why, chosen, rival, rate_per_s, infeasible, targets.form),
            predicted_revenue_per_s=chosen.revenue_per_s,
            predicted_p99_ms=chosen.p99_ms,
            predicted_power_w=chosen.power_w,
            runner_up=rival.point if rival else None,
            runner_up_revenue_per_s=rival.revenue_per_s if rival else None,
            alarm=self._alarms.alarm(land, place, chosen.point, strong=strong, known_per_s=held_per_s),
            alternatives=tuple(rivals),
            infeasible=infeasible,
            learned=learned,
        )

    def _within_limits(self, prediction: Prediction) -> Prediction:
        """Keep the batch limit steady, smaller in a jam, and the delay short while the clock comes up."""
        point = prediction.point
        steady = _steadied(point.batch_limit, self._last_point, self._known.requests.largest)
        limit = self._jam.limit(steady, self._grid.batch_limits)
        delay_ms = _delay_ms(point, self._last_point)
        if (limit, delay_ms) == (point.batch_limit, point.max_delay_ms):
            return prediction
        return replace(prediction, point=replace(point, batch_limit=limit, max_delay_ms=delay_ms))

    def _start(self, point: OperatingPoint) -> OperatingPoint:
        return replace(
            self._grid.default, sm_clock_mhz=point.sm_clock_mhz and self._grid.default.sm_clock_mhz
        )

    def insight(self) -> Insight:
        """Tell what was learned, for a person to read."""
        known, machine = self._known, self._known.machine
        return Insight(
            tried=machine.tried(),
            idle_power_w=machine.idle_w if machine.knows_power else None,
            doubt=machine.doubt_share,
            overhead_ms=known.caution.overhead_ms,
            rate_per_s=known.arrivals.rate_per_s,
            burstiness=known.clumps.dispersion,
            unevenness=known.arrivals.dispersion,
            evenness=known.evenness.shape,
        )


def _steadied(limit: int, now: OperatingPoint | None, largest_request: float) -> int:
    """Keep the present batch limit where the best differs little: that is what noise does to it."""
    if now is None or not _LITTLE_LESS * limit <= now.batch_limit <= _LITTLE_MORE * limit:
        return limit
    return limit if now.batch_limit < largest_request <= limit else now.batch_limit


def _delay_ms(point: OperatingPoint, now: OperatingPoint | None) -> float:
    """Wait no longer than now while the clock comes up: until then batches take as long as they do now."""
    if now is None or (now.sm_clock_mhz or math.inf) >= (point.sm_clock_mhz or 0):
        return point.max_delay_ms
    return min(point.max_delay_ms, now.max_delay_ms)


def _without_clock(decision: Decision) -> Decision:
    """The same for a device that refuses to set its clock: only what the batches can do."""
    point = replace(decision.point, sm_clock_mhz=None)
    return replace(
        decision, point=point, alarm=None, runner_up=None, runner_up_revenue_per_s=None, alternatives=()
    )
