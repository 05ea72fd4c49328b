"""What every setting would earn on the present load, from everything learned so far.

A setting is a mean batch and a clock. The clock decides the largest batch that may be formed (it must fit
into the SLO), and the mean batch the delay that gathers it; so each (mean batch, clock) is one legal
operating point, and all of them are scored at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.models.at_once import late_share_at_once
from optimizer.models.batch_regime import largest_in_time
from optimizer.models.load import Load
from optimizer.models.machine import Machine
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Prediction
from optimizer.policies.scores import LATE_ALLOWED, Ground, Scores, cautious_cap_w, edge_s, needed_per_s
from optimizer.revenue import Outcome, Targets, most_revenue, score

Array = NDArray[np.float64]

_LARGEST_BATCH = 0.9
"""The share of the SLO that the largest batch may take: beyond, nobody in it is answered in time."""
_AMPLE = 1.2
_HARDLY_MORE = 1.05
_UNSEEN_SHARE = 0.95
"""The share of the SLO that may be used on a load other than the present, which teaches caution."""
_UNTIL_FAST_S = 0.25
"""What it takes at most until another clock is in force, from the alarm on."""
_BEARABLE = 0.9
"""The share of what the fast point serves; of what exceeds that most is late at whatever clock it comes."""


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
        self._most_per_s = most_revenue(targets, 1.0, load.rate_per_s)
        self.hopes = targets.form != "profit"
        self._caps = self._largest(load, targets.slo_p99_ms / 1e3)
        self._steady = largest_in_time(self.tables.cautious_times_s, self._spare_s / 2.0)
        self._columns = np.arange(self._caps.size)
        self._largest_per_s = self._rows.per_s(self._caps, self.tables.times_s)
        self._steady_per_s = self._rows.per_s(self._steady, self.tables.cautious_times_s)
        self._surge_late: Array | None = None
        self._ground = self._ground_of(machine, load, targets, margins)
        self._score_from(self._ground.lowest)
        if not self.feasible and self._first:  # then nothing is delayed, and only greedy batches count
            self._ground = self._ground._replace(lowest=self._caps.size - 1)
            self._score_from(0)

    def _ground_of(self, machine: Machine, load: Load, targets: Targets, margins: Margins) -> Ground:
        """Put together what settings are scored on."""
        lowest = self._first_with_reserve(targets, margins)
        return Ground(
            sizes=self._rows,
            tables=self.tables,
            hoped=machine.hoped() if self.hopes else None,
            caps=self._caps,
            largest_per_s=self._largest_per_s,
            steady_per_s=self._steady_per_s,
            surge_loss=self._lost_to_surges(load, targets, margins, lowest),
            lowest=lowest,
            idle_w=machine.idle_w if self.tables.running_w is not None else 0.0,
            cap_w=None if targets.power_cap_w is None else cautious_cap_w(targets.power_cap_w, machine.busy),
            reserve_per_s=margins.reserve_per_s,
            spare_s=self._spare_s,
            edge_s=edge_s(targets, self._overhead_s),
            load=load,
            targets=targets,
        )

    def _score_from(self, first: int) -> None:
        """Score the clocks from one on: none below has the reserve, and none is chosen if others will do."""
        self._first, self._scores = first, Scores(self._ground.from_clock(first))

    def _scored(self, column: int) -> int:
        """Return where a clock stands among those scored; if it does not, all are."""
        if column < self._first:
            self._score_from(0)
        return column - self._first

    @property
    def feasible(self) -> bool:
        """Whether anything keeps SLO and power cap."""
        return self._scores.feasible

    @property
    def slo_binds(self) -> bool:
        """Whether late answers, with all that they cost, would earn more than keeping the SLO does."""
        return self._scores.slo_binds

    @property
    def most_per_s(self) -> float:
        """What could be earned if everything were in time and cost nothing."""
        return self._most_per_s

    def revenue_per_s(self, row: int, column: int) -> float:
        """Return what a setting is expected to earn."""
        at = self._scored(column)
        return float(self._scores.revenue_per_s[row, at])

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
        (slow,) = (self._rows.per_s(caps, times_s) < _AMPLE * load.rate_per_s).nonzero()
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
        enough_per_s = needed_per_s(margins.reserve_per_s, float(self._steady_per_s[-1]))
        return int((self._steady_per_s >= enough_per_s).argmax())

    def holds_surge(self, column: int) -> int:
        """Return the lowest clock that is expected to hold a surge, if that is lower than this one."""
        if self._surge_late is None:
            return column
        holds = self._surge_late <= LATE_ALLOWED
        return min(column, int(holds.argmax())) if holds[column] else column

    @property
    def fast_column(self) -> int:
        """The clock with the most capacity at batches that keep the SLO; among equals the lowest."""
        return self._scores.fast + self._first

    def best(self) -> tuple[int, int]:
        """Return row and column of the setting that is expected to earn the most."""
        return self.best_at(int(self._scores.best_merits.argmax()) + self._first)

    def best_at(self, column: int) -> tuple[int, int]:
        """Return the best mean batch at one clock."""
        return (int(self._scores.best_rows[column - self._first]) if column >= self._first else 0), column

    def holds(self, column: int) -> bool:
        """Whether anything is expected to do at a clock."""
        return math.isfinite(self.cost_per_s(*self.best_at(column)))

    def best_row(self, column: int) -> int:
        """Return the best mean batch at one clock; the one without delay where none is expected to do."""
        row, _ = self.best_at(column)
        return row if math.isfinite(self.cost_per_s(row, column)) else self.greedy_row(column)

    def most_promising(self, curiosity: float) -> tuple[int, int]:
        """Return the setting that may cost least, where up to this share is taken off for what is unknown."""
        return self.best_at(int(self._least_costs(curiosity).argmin()) + self._first)

    def least_cost_per_s(self, column: int, curiosity: float) -> float:
        """Return what the best setting at a clock may cost at least; as for `most_promising`."""
        return float(self._least_costs(curiosity)[self._scored(column)])

    def _least_costs(self, curiosity: float) -> Array:
        scores = self._scores
        cost = self._most_per_s - np.maximum(scores.best_merits, scores.hoped_merits)
        unknown = 1.0 - self.tables.known[scores.best_rows, self._columns[self._first :]]
        bonus = np.where(np.isfinite(cost), cost, 0.0) * curiosity * unknown
        least: Array = cost - bonus
        return least

    def top(self, count: int) -> list[tuple[int, int]]:
        """Return the best settings with different clocks, best first."""
        order = (-self._scores.best_merits).argsort(kind="stable")[:count]
        return [self.best_at(column + self._first) for column in order.tolist()]

    def point(self, row: int, column: int) -> OperatingPoint:
        """Return the legal setting that has this mean batch at this clock."""
        at = self._scored(column)
        return OperatingPoint(
            self._limit(int(self._caps[column])),
            self.clock_mhz(column),
            max_delay_ms=round(1e3 * self._scores.regime.delay_at_s(row, at), 3),
        )

    @property
    def clocks_mhz(self) -> tuple[int, ...]:
        """The clocks of the columns; none where clocks are not governed."""
        return self._grid.sm_clocks_mhz

    def clock_mhz(self, column: int) -> int | None:
        """Return the clock of a column; None where clocks are not governed."""
        return self._grid.sm_clocks_mhz[column] if self._grid.sm_clocks_mhz else None

    def predictions(self, places: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return what is expected at some settings, given by row and column; at least one."""
        rows, columns = np.array(places).T
        self._scored(int(columns.min()))
        p99s_ms = 1e3 * (self._scores.regime.longest_s(rows, columns - self._first) + self._overhead_s)
        return [
            self._prediction(*place, p99_ms) for place, p99_ms in zip(places, p99s_ms.tolist(), strict=True)
        ]

    def _prediction(self, row: int, column: int, p99_ms: float) -> Prediction:
        at, powers_w = self._scored(column), self._scores.power_w
        power_w = None if powers_w is None else float(powers_w[row, at])
        return Prediction(self.point(row, column), self.revenue_per_s(row, column), p99_ms, power_w)

    def prediction(self, row: int, column: int) -> Prediction:
        """Return the same of one setting."""
        return self.predictions([(row, column)])[0]

    def p99_ms(self, row: int, column: int) -> float:
        """Return the latency expected there."""
        return self.prediction(row, column).p99_ms

    def cost_per_s(self, row: int, column: int) -> float:
        """Return what a setting falls short of the most that could be earned."""
        if column < self._first:
            return math.inf
        return self._most_per_s - float(self._scores.merit[row, column - self._first])

    def capacity_per_s(self, column: int) -> float:
        """Return the images a second that a clock can serve for long: two of its batches fit into the SLO."""
        return float(self._steady_per_s[column])

    def steady_batch_s(self, column: int) -> float:
        """Return how long such a batch takes."""
        return float(self.tables.cautious_times_s[self._steady[column], column])

    def greedy_row(self, column: int) -> int:
        """Return the mean batch that needs no delay at a clock; the largest where it is too slow."""
        at = self._scored(column)
        return int(min(self._scores.regime.at_once.rows[at], self._caps[column]))

    def mean_images(self, row: int) -> float:
        """Return the mean batch of a row."""
        return float(self._sizes[row])

    def rests_in_time(self, column: int) -> bool:
        """Whether two requests in a row, of as many images as came of late, keep the SLO at a clock."""
        images = self._ground.load.own_images
        row = self._rows.row_for(images)
        batches = max(1.0, images / float(self._sizes[row]))
        return bool(2.0 * batches * self.tables.cautious_times_s[row, column] <= self._spare_s)

    @property
    def spare_s(self) -> float:
        """The latency that may be used up."""
        return self._spare_s

    def in_time(self, row: int, column: int) -> bool:
        """Whether a setting is expected to keep the SLO."""
        at = self._scored(column)
        return bool(self._scores.in_time[row, at])

    def under_cap(self, row: int, column: int) -> bool:
        """Whether a setting is expected to keep the power cap."""
        at = self._scored(column)
        return self._scores.allowed is None or bool(self._scores.allowed[row, at])

    def _lost_to_surges(self, load: Load, targets: Targets, margins: Margins, lowest: int) -> Array | None:
        """Return what is lost a second, at each clock, to images that are late until the fast one is set."""
        if margins.surges <= 0.0 or margins.surge_per_s <= _HARDLY_MORE * load.rate_per_s:
            return None
        served_per_s = self._largest_per_s
        surge_per_s = min(margins.surge_per_s, _BEARABLE * float(served_per_s[-1]))
        surge = load._replace(rate_per_s=surge_per_s, shape=1.0)
        spare_s = min(self._spare_s, _UNSEEN_SHARE * targets.slo_p99_ms / 1e3 - self._overhead_s)
        share, looked_at = np.ones(self._caps.size), slice(lowest, None)
        times_s = self.tables.cautious_times_s[:, looked_at]
        share[looked_at] = late_share_at_once(self._rows, times_s, self._caps[looked_at], surge, spare_s)
        self._surge_late = share
        late = margins.surges * _late_for_s(surge_per_s, served_per_s) * surge_per_s * share
        np.minimum(load.rate_per_s, late, out=late)
        nothing = np.zeros_like(late)
        most = self._most_per_s
        loss: Array = (
            most - score(targets, Outcome(1.0, load.rate_per_s - late, late, nothing, nothing)).total
        )
        return loss

    def _limit(self, cap_row: int) -> int:
        limits = self._grid.batch_limits
        return limits[max(0, bisect_right(limits, self._sizes[cap_row]) - 1)]


def _late_for_s(surge_per_s: float, served_per_s: Array) -> Array:
    """Return how long a surge makes images late: until the fast clock is set, and has worked off the rest."""
    backlog = np.maximum(0.0, surge_per_s - served_per_s) * _UNTIL_FAST_S
    late_for_s: Array = _UNTIL_FAST_S + backlog / (float(served_per_s[-1]) - surge_per_s)
    return late_for_s
