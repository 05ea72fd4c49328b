"""What every setting would earn on the present load, from everything learned so far.

A setting is a mean batch and a clock. The clock decides the largest batch that may be formed (it must fit
into the SLO), and the mean batch the delay that gathers it; so each (mean batch, clock) is one legal
operating point, and all of them are scored at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.models.at_once import late_share_at_once
from optimizer.models.batch_regime import largest_in_time, mean_latency_s, overflow_share, regimes
from optimizer.models.load import Load
from optimizer.models.machine import Hoped, Machine
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Prediction
from optimizer.revenue import Outcome, Targets, most_revenue, score, weighs_latency

Array = NDArray[np.float64]

_LARGEST_BATCH = 0.9
"""The share of the SLO that the largest batch may take: beyond, nobody in it is answered in time."""
_NEARLY = 0.98
_AMPLE = 1.2
_HARDLY_MORE = 1.05
_UNSEEN_SHARE = 0.95
"""The share of the SLO that may be used on a load other than the present, which teaches caution."""
_UNTIL_FAST_S = 0.25
"""What it takes at most until another clock is in force, from the alarm on."""
_LATE_ALLOWED = 0.007
_RESOLVED = 0.001
_EDGE = 0.94
_CLEARLY_MORE = 0.0
_NOBODY_IN_TIME = 0.9
_CAP_SHARE = 0.985
"""A power cap is never to be exceeded, and predicted powers are off by a per cent."""


@dataclass(frozen=True, slots=True)
class Margins:
    """What is kept free for what the models cannot tell.

    Args:
        slo_share: the share of the SLO that a predicted latency may reach.
        overhead_ms: latency that was measured beyond the predicted.
        reserve_per_s: images a second that the capacity must reach; that of the fast point is enough.
        surge_per_s: images a second that come in a surge, ...
        surges: ... and how many surges begin a second.
    """

    slo_share: float
    overhead_ms: float
    reserve_per_s: float
    surge_per_s: float = 0.0
    surges: float = 0.0


class Landscape:
    """Every setting scored on one load. Rows are mean batches, columns clocks.

    Args:
        grid: the legal settings.
        machine: what was learned, with something in it.
        load: what arrives.
        targets: what the operator wants; with a plain energy price.
        margins: what is kept free.
    """

    def __init__(
        self, grid: OperatingGrid, machine: Machine, load: Load, targets: Targets, margins: Margins
    ) -> None:
        self._grid, self._rows, self._sizes = grid, machine.rows, machine.sizes
        self._spare_s = max(1e-4, (targets.slo_p99_ms * margins.slo_share - margins.overhead_ms) / 1e3)
        self._overhead_s = margins.overhead_ms / 1e3
        self.tables = machine.tables()
        self._caps = self._largest(load, targets.slo_p99_ms / 1e3)
        self._steady = largest_in_time(self.tables.cautious_times_s, self._spare_s / 2.0)
        self._columns = np.arange(self._caps.size)
        self._steady_per_s = (
            self._sizes[self._steady] / self.tables.cautious_times_s[self._steady, self._columns]
        )
        self._lowest = self._first_with_reserve(targets, margins)
        self._regime = regimes(
            self._rows, self.tables.cautious_times_s, self._caps, load, self._spare_s, self._lowest
        )
        self._score(machine, load, targets, margins)

    def _largest(self, load: Load, slo_s: float) -> NDArray[np.intp]:
        """Return the row of the largest batch to form at each clock: any that is answered in time itself.

        A smaller one than the largest request would only split that. A large batch is how a queue that has
        grown is worked off, so caution must not make it smaller; and a clock that is too slow for the load at
        that size needs all it can get.
        """
        times_s = self.tables.times_s
        caps = np.maximum(
            self._rows.row_for(load.largest_request), largest_in_time(times_s, _LARGEST_BATCH * slo_s)
        )
        capacity = self._sizes[caps] / times_s[caps, np.arange(caps.size)]
        (slow,) = (capacity < _AMPLE * load.rate_per_s).nonzero()
        if slow.size:
            quickest = np.argmax(self._sizes[:, None] / times_s[:, slow], axis=0)
            caps[slow] = np.maximum(caps[slow], quickest)
        return caps

    def _first_with_reserve(self, targets: Targets, margins: Margins) -> int:
        """Return the lowest clock that has the reserve: what is below is not worth a closer look.

        Under a power cap the fast point, whose reserve would be enough, is known only later.
        """
        if targets.power_cap_w is not None:
            return 0
        return int((self._steady_per_s >= self._needed_per_s(margins, -1)).argmax())

    def _needed_per_s(self, margins: Margins, fast: int) -> float:
        return min(margins.reserve_per_s, _NEARLY * float(self._steady_per_s[fast]))

    def holds_surge(self, column: int) -> int:
        """Return the lowest clock that is expected to hold a surge, if that is lower than this one."""
        if self._surge_late is None:
            return column
        holds = self._surge_late <= _LATE_ALLOWED
        return min(column, int(holds.argmax())) if holds[column] else column

    @property
    def fast_column(self) -> int:
        """The clock with the most capacity at batches that keep the SLO; among equals the lowest."""
        return self._fast

    def best(self) -> tuple[int, int]:
        """Return row and column of the setting that is expected to earn the most."""
        return self.best_at(int(self._best_merits.argmax()))

    def best_at(self, column: int) -> tuple[int, int]:
        """Return the best mean batch at one clock."""
        return int(self._best_rows[column]), column

    def best_row(self, column: int) -> int:
        """Return the best mean batch at one clock; the one without delay where none is expected to do."""
        row, _ = self.best_at(column)
        return row if np.isfinite(self.merit[row, column]) else self.greedy_row(column)

    def most_promising(self, curiosity: float) -> tuple[int, int]:
        """Return the setting that may cost least, where up to this share is taken off for what is unknown."""
        return self.best_at(int(self._least_costs(curiosity).argmin()))

    def least_cost_per_s(self, column: int, curiosity: float) -> float:
        """Return what the best setting at a clock may cost at least; as for `most_promising`."""
        return float(self._least_costs(curiosity)[column])

    def _least_costs(self, curiosity: float) -> Array:
        cost = self._most_per_s - np.maximum(self._best_merits, self._hoped_merits)
        unknown = 1.0 - self.tables.known[self._best_rows, self._columns]
        bonus = np.where(np.isfinite(cost), cost, 0.0) * curiosity * unknown
        least: Array = cost - bonus
        return least

    def top(self, count: int) -> list[tuple[int, int]]:
        """Return the best settings with different clocks, best first."""
        order = (-self._best_merits).argsort(kind="stable")[:count]
        return [self.best_at(column) for column in order.tolist()]

    def point(self, row: int, column: int) -> OperatingPoint:
        """Return the legal setting that has this mean batch at this clock."""
        return OperatingPoint(
            self._limit(int(self._caps[column])),
            self.clock_mhz(column),
            max_delay_ms=round(1e3 * self._regime.delay_at_s(row, column), 3),
        )

    def clock_mhz(self, column: int) -> int | None:
        """Return the clock of a column; None where clocks are not governed."""
        return self._grid.sm_clocks_mhz[column] if self._grid.sm_clocks_mhz else None

    def predictions(self, places: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return what is expected at some settings, given by row and column; at least one."""
        rows, columns = np.array(places).T
        p99s_ms = 1e3 * (self._regime.longest_s(rows, columns) + self._overhead_s)
        return [
            self._prediction(*place, p99_ms) for place, p99_ms in zip(places, p99s_ms.tolist(), strict=True)
        ]

    def _prediction(self, row: int, column: int, p99_ms: float) -> Prediction:
        power_w = None if self.power_w is None else float(self.power_w[row, column])
        return Prediction(self.point(row, column), float(self.revenue_per_s[row, column]), p99_ms, power_w)

    def prediction(self, row: int, column: int) -> Prediction:
        """Return the same of one setting."""
        return self.predictions([(row, column)])[0]

    def p99_ms(self, row: int, column: int) -> float:
        """Return the latency expected there."""
        return self.prediction(row, column).p99_ms

    def cost_per_s(self, row: int, column: int) -> float:
        """Return what a setting falls short of the most that could be earned."""
        return self._most_per_s - float(self.merit[row, column])

    def capacity_per_s(self, column: int) -> float:
        """Return the images a second that a clock can serve for long: two of its batches fit into the SLO."""
        return float(self._steady_per_s[column])

    def steady_batch_s(self, column: int) -> float:
        """Return how long such a batch takes."""
        return float(self.tables.cautious_times_s[self._steady[column], column])

    def greedy_row(self, column: int) -> int:
        """Return the mean batch that needs no delay at a clock; the largest where it is too slow."""
        return int(min(self._regime.at_once.rows[column], self._caps[column]))

    def mean_images(self, row: int) -> float:
        """Return the mean batch of a row."""
        return float(self._sizes[row])

    def rests_in_time(self, column: int) -> bool:
        """Whether two single images in a row keep the SLO at a clock."""
        return bool(2.0 * self.tables.cautious_times_s[0, column] <= self._spare_s)

    @property
    def spare_s(self) -> float:
        """The latency that may be used up."""
        return self._spare_s

    def in_time(self, row: int, column: int) -> bool:
        """Whether a setting is expected to keep the SLO."""
        return bool(self._in_time[row, column])

    def under_cap(self, row: int, column: int) -> bool:
        """Whether a setting is expected to keep the power cap."""
        return bool(self._allowed[row, column])

    def _score(self, machine: Machine, load: Load, targets: Targets, margins: Margins) -> None:
        regime, rate = self._regime, load.rate_per_s
        largest = self._sizes[self._caps]
        capacity = largest / self.tables.times_s[self._caps, self._columns]
        overflow = overflow_share(load, capacity, largest - regime.at_once.mean)
        self._late_share = regime.late_share + np.where(overflow > _RESOLVED, overflow, 0.0)
        np.minimum(1.0, self._late_share, out=self._late_share)
        late = rate * self._late_share
        np.maximum(late, rate - capacity, out=late)
        self.power_w = self._power(machine)
        self.hopes = targets.form != "profit"
        hoped = machine.hoped() if self.hopes else None
        typical_ms, hoped_ms = self._typical_ms(hoped, load, targets)
        outcome = Outcome(1.0, rate - late, late, self.power_w, typical_ms)
        self._most_per_s = most_revenue(targets, 1.0, rate)
        self._surge_loss = self._lost_to_surges(load, targets, margins)
        self.revenue_per_s = score(targets, outcome).total - self._surge_loss
        self._in_time = (self._late_share <= _LATE_ALLOWED) & self._off_the_edge(targets)
        self._judge(regime.possible & (capacity > rate), machine, targets, margins)
        self._hoped_merits = self._best_merits
        if hoped is not None:
            self._hoped_merits = self._hope(machine, targets, outcome, hoped, hoped_ms)

    def _lost_to_surges(self, load: Load, targets: Targets, margins: Margins) -> Array:
        """Return what is lost a second, at each clock, to images that are late until the fast one is set."""
        self._surge_late: Array | None = None
        if margins.surges <= 0.0 or margins.surge_per_s <= _HARDLY_MORE * load.rate_per_s:
            return np.zeros(self._caps.size)
        surge = load._replace(rate_per_s=margins.surge_per_s)
        spare_s = min(self._spare_s, _UNSEEN_SHARE * targets.slo_p99_ms / 1e3 - self._overhead_s)
        share, looked_at = np.ones(self._caps.size), slice(self._lowest, None)
        times_s = self.tables.cautious_times_s[:, looked_at]
        share[looked_at] = late_share_at_once(self._rows, times_s, self._caps[looked_at], surge, spare_s)
        self._surge_late = share
        late = np.minimum(load.rate_per_s, margins.surges * _UNTIL_FAST_S * surge.rate_per_s * share)
        nothing = np.zeros_like(late)
        most = self._most_per_s
        loss: Array = (
            most - score(targets, Outcome(1.0, load.rate_per_s - late, late, nothing, nothing)).total
        )
        return loss

    def _typical_ms(self, hoped: Hoped | None, load: Load, targets: Targets) -> tuple[Array, Array]:
        """Return the mean latency expected and that hoped for; nothing where the form does not ask."""
        if hoped is None or not weighs_latency(targets):
            return np.zeros(()), np.zeros(())
        both_s = np.concatenate((self.tables.times_s, hoped.times_s), axis=1)
        delayed = np.concatenate((self._regime.delayed,) * 2, axis=1)
        caps = np.concatenate((self._caps,) * 2)
        both_ms = 1e3 * mean_latency_s(self._rows, both_s, caps, load, delayed)
        return both_ms[:, : self._caps.size], both_ms[:, self._caps.size :]

    def _hope(
        self, machine: Machine, targets: Targets, expected: Outcome[Array], hoped: Hoped, latency_ms: Array
    ) -> Array:
        """Return what the best setting at each clock is worth if batches there end as soon as may be.

        Only where averages are scored: there the times weigh more than what an exploration costs. What is
        ruled out for the times to reckon with stays so.
        """
        best, power_w = (self._best_rows, self._columns), expected.joules
        if power_w is not None:
            power_w = power_w[best]
            if hoped.running_w is not None and self.tables.running_w is not None:
                busy = hoped.times_s[best] / self.tables.cautious_times_s[best]
                drawn = hoped.running_w[best] / np.maximum(1e-9, self.tables.running_w[best])
                power_w = machine.idle_w + busy * drawn * (power_w - machine.idle_w)
        latency_ms = latency_ms[best] if latency_ms.ndim else latency_ms
        outcome = Outcome(1.0, expected.in_time[best], expected.late[best], power_w, latency_ms)
        worth = score(targets, outcome).total - self._surge_loss
        merits: Array = np.where(np.isfinite(self._best_merits), worth, -np.inf)
        return merits

    def _judge(self, served: NDArray[np.bool_], machine: Machine, targets: Targets, margins: Margins) -> None:
        """Say what each setting is worth, of those that serve the load; minus infinity for what is ruled out.

        A power cap is kept by the running batch, if that can be: then no surge exceeds it. Otherwise by the
        mean power on this load, which is less by the pauses between batches.
        """
        running, rows = self._running_under_cap(machine, targets), self._caps
        usable = self._usable(running, rows, served, margins)
        safe = usable & self._in_time
        self.feasible = bool(safe.any())
        if not self.feasible and targets.power_cap_w is not None and self.power_w is not None:
            mean = self.power_w <= _CAP_SHARE * targets.power_cap_w
            usable = self._usable(running | mean, self._regime.at_once.rows, served, margins)
            safe = usable & self._in_time
            self.feasible = bool(safe.any())
        with_late_answers = np.where(usable, self.revenue_per_s, -np.inf)
        if not self.feasible:
            usable = served & self._allowed & ~self._regime.delayed
        self.merit = np.where(safe if self.feasible else usable, self.revenue_per_s, -np.inf)
        if not self.feasible and not (usable & (self._late_share <= _NOBODY_IN_TIME)).any():
            self._last_resort()
        self._best_rows = self.merit.argmax(axis=0)
        self._best_merits = self.merit[self._best_rows, self._columns]
        self.slo_binds = self.feasible and self._earns_more(float(with_late_answers.max()))

    def _usable(
        self,
        allowed: NDArray[np.bool_],
        rows: NDArray[np.intp],
        served: NDArray[np.bool_],
        margins: Margins,
    ) -> NDArray[np.bool_]:
        """Return what keeps the power cap, serves the load and has the reserve; and choose the fast point."""
        self._allowed, self._fast = allowed, self._fastest(allowed, rows)
        enough = self._steady_per_s >= self._needed_per_s(margins, self._fast)
        usable: NDArray[np.bool_] = served & allowed & enough
        return usable

    def _earns_more(self, revenue_per_s: float) -> bool:
        """Whether a revenue, late answers and all, is clearly more than can be had under the SLO."""
        kept = float(self._best_merits.max())
        return revenue_per_s - kept > _CLEARLY_MORE * abs(kept)

    def _off_the_edge(self, targets: Targets) -> NDArray[np.bool_]:
        """Whether a delay leaves a little of the SLO: most images of a delayed batch wait equally long.

        Where nothing is delayed few latencies come near the longest; where batches are, a small error would
        make all of them late at once.
        """
        edge_s = _EDGE * targets.slo_p99_ms / 1e3 - self._overhead_s
        kept = self._regime.gathered_longest_s <= edge_s
        kept |= ~self._regime.delayed
        return kept

    def _last_resort(self) -> None:
        """Nothing can serve the load, or nearly all would be late everywhere: the fast point loses least."""
        row, column = self.greedy_row(self._fast), self._fast
        self.merit = np.full_like(self.revenue_per_s, -np.inf)
        self.merit[row, column] = self.revenue_per_s[row, column]
        self._regime = self._regime._replace(delayed=np.zeros_like(self._regime.delayed))

    def _power(self, machine: Machine) -> Array | None:
        running_w = self.tables.running_w
        if running_w is None:
            return None
        power_w = self._regime.busy * running_w
        rows, columns, mean = self._regime.at_once.rows, self._columns, self._regime.at_once.mean
        below = np.maximum(rows - 1, 0)
        back = (self._sizes[rows] - mean) / np.maximum(1.0, self._sizes[rows] - self._sizes[below])
        above_w = running_w[rows, columns]
        usual_w = above_w - back * (above_w - running_w[below, columns])
        power_w[rows, columns] = self._regime.busy[rows, columns] * usual_w
        power_w += machine.idle_w
        return power_w

    def _fastest(self, allowed: NDArray[np.bool_], rows: NDArray[np.intp]) -> int:
        """Return the highest clock that is allowed at these batches, else the one that draws least."""
        (found,) = allowed[rows, self._columns].nonzero()
        if found.size or self.power_w is None:
            return int(found[-1])
        return int(self.power_w[self._regime.at_once.rows, self._columns].argmin())

    def _running_under_cap(self, machine: Machine, targets: Targets) -> NDArray[np.bool_]:
        running_w = self.tables.running_w
        if running_w is None or targets.power_cap_w is None:
            return np.ones(self._late_share.shape, bool)
        return machine.idle_w + running_w <= _CAP_SHARE * targets.power_cap_w

    def _limit(self, cap_row: int) -> int:
        limits = self._grid.batch_limits
        return limits[max(0, bisect_right(limits, self._sizes[cap_row]) - 1)]
