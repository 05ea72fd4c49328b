"""What every setting of some clocks is worth on one load, and the best of each clock.

Rows are mean batches, columns clocks. Clocks that lack the reserve cannot be chosen while others keep the
SLO, so that it is enough to score the others; only where none does, all are looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.models.batch_regime import mean_latency_s, overflow_share, regimes
from optimizer.models.batch_sizes import BatchSizes, Rows
from optimizer.models.load import Load
from optimizer.models.machine import Hoped, Tables
from optimizer.revenue import Outcome, Targets, score, weighs_latency

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NEARLY = 0.98
"""The share of what the fast point serves that is reserve enough."""
LATE_ALLOWED = 0.007
_RESOLVED = 0.001
_EDGE = 0.94
_NOBODY_IN_TIME = 0.9
_CAP_SHARE, _CAP_DOUBT = 0.985, 0.08
"""A power cap is never to be exceeded, and predicted powers are off by a per cent.

Those of running batches by more, the less of the time they ran: the power between them is a guess.
"""


class Ground(NamedTuple):
    """What settings are scored on.

    Args:
        sizes: of the rows.
        tables: what is expected of batches.
        hoped: what they may come to at best; None where that is not asked.
        caps: the row of the largest batch to form, one a clock.
        largest_per_s: images a second of such batches.
        steady_per_s: images a second that a clock can serve for long.
        surge_loss: what is lost a second to surges, one a clock; None for nothing.
        lowest: the first clock at which it matters what batches meet that gather.
        idle_w: power while nothing runs.
        cap_w: the power that is not to be exceeded, less what predictions may be off by; None without a cap.
        reserve_per_s: images a second that the capacity must reach; that of the fast point is enough.
        spare_s: the latency that may be used up.
        edge_s: the latency of delayed batches that leaves a little of the SLO.
        load: what arrives.
        targets: what the operator wants; with a plain energy price.
    """

    sizes: BatchSizes
    tables: Tables
    hoped: Hoped | None
    caps: Rows
    largest_per_s: Array
    steady_per_s: Array
    surge_loss: Array | None
    lowest: int
    idle_w: float
    cap_w: float | None
    reserve_per_s: float
    spare_s: float
    edge_s: float
    load: Load
    targets: Targets

    def from_clock(self, first: int) -> Ground:
        """Return the same of the clocks from one on."""
        if not first:
            return self
        return self._replace(
            tables=self.tables.from_column(first),
            hoped=None if self.hoped is None else self.hoped.from_column(first),
            caps=self.caps[first:],
            largest_per_s=self.largest_per_s[first:],
            steady_per_s=self.steady_per_s[first:],
            surge_loss=None if self.surge_loss is None else self.surge_loss[first:],
            lowest=max(0, self.lowest - first),
        )


def needed_per_s(reserve_per_s: float, fastest_per_s: float) -> float:
    """Return the capacity that is reserve enough where the fast point serves so much."""
    return min(reserve_per_s, _NEARLY * fastest_per_s)


def cautious_cap_w(cap_w: float, busy: float) -> float:
    """Return what predictions may reach under a cap where batches ran for this share of the time so far."""
    return cap_w * _CAP_SHARE / (1.0 + _CAP_DOUBT * (1.0 - busy))


def edge_s(targets: Targets, overhead_s: float) -> float:
    """Return the latency that leaves a little of the SLO."""
    return _EDGE * targets.slo_p99_ms / 1e3 - overhead_s


class Scores:
    """Every setting scored.

    Attributes:
        regime: what the load meets there.
        power_w: mean power; None where it was never measured.
        revenue_per_s: what a setting earns.
        merit: the same; minus infinity for what is ruled out.
        best_rows: the best mean batch, one a clock.
        best_merits: its merit.
        hoped_merits: its merit if batches there end as soon as may be.
        in_time: whether a setting is expected to keep the SLO.
        allowed: whether it is expected to keep the power cap; None where there is none.
        fast: the clock with the most capacity at batches that keep the SLO; among equals the lowest.
        feasible: whether anything keeps SLO and cap.
        slo_binds: whether late answers, with all that they cost, would earn more than keeping the SLO does.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground, self._columns = ground, np.arange(ground.caps.size)
        self.regime = regimes(
            ground.sizes,
            ground.tables.cautious_times_s,
            ground.caps,
            ground.load,
            ground.spare_s,
            ground.lowest,
        )
        self._late_share = self._late()
        self.power_w = self._power()
        typical_ms, hoped_ms = self._typical_ms()
        expected = self._expected(typical_ms)
        self.revenue_per_s = self._worth(expected)
        self.in_time = (self._late_share <= LATE_ALLOWED) & self._off_the_edge()
        self._judge()
        self.hoped_merits = self.best_merits
        if ground.hoped is not None:
            self.hoped_merits = self._hope(expected, ground.hoped, hoped_ms)

    def _late(self) -> Array:
        """Return the share of late images: with what the largest batches cannot take."""
        ground = self._ground
        room = ground.sizes.images.take(ground.caps) - self.regime.at_once.mean
        overflow = overflow_share(ground.load, ground.largest_per_s, room)
        late_share: Array = self.regime.late_share + np.where(overflow > _RESOLVED, overflow, 0.0)
        return np.minimum(1.0, late_share, out=late_share)

    def _expected(self, latency_ms: Array) -> Outcome[Array]:
        """Return what is expected to happen in a second."""
        rate = self._ground.load.rate_per_s
        late = rate * self._late_share
        np.maximum(late, rate - self._ground.largest_per_s, out=late)
        return Outcome(1.0, rate - late, late, self.power_w, latency_ms)

    def _worth(self, outcome: Outcome[Array]) -> Array:
        total, lost = score(self._ground.targets, outcome).total, self._ground.surge_loss
        return total if lost is None else total - lost

    def _typical_ms(self) -> tuple[Array, Array]:
        """Return the mean latency expected and that hoped for; nothing where the form does not ask."""
        ground = self._ground
        if ground.hoped is None or not weighs_latency(ground.targets):
            return np.zeros(()), np.zeros(())
        both_s = np.concatenate((ground.tables.times_s, ground.hoped.times_s), axis=1)
        delayed = np.concatenate((self.regime.delayed,) * 2, axis=1)
        caps = np.concatenate((ground.caps,) * 2)
        both_ms = 1e3 * mean_latency_s(ground.sizes, both_s, caps, ground.load, delayed)
        return both_ms[:, : ground.caps.size], both_ms[:, ground.caps.size :]

    def _hope(self, expected: Outcome[Array], hoped: Hoped, latency_ms: Array) -> Array:
        """Return what the best setting at each clock is worth if batches there end as soon as may be.

        Only where averages are scored: there the times weigh more than what an exploration costs. What is
        ruled out for the times to reckon with stays so.
        """
        best = self.best_rows, self._columns
        latency_ms = latency_ms[best] if latency_ms.ndim else latency_ms
        power_w = self._hoped_power(hoped)
        worth = self._worth(Outcome(1.0, expected.in_time[best], expected.late[best], power_w, latency_ms))
        merits: Array = np.where(np.isfinite(self.best_merits), worth, -np.inf)
        return merits

    def _hoped_power(self, hoped: Hoped) -> Array | None:
        best, tables, idle_w = (self.best_rows, self._columns), self._ground.tables, self._ground.idle_w
        if self.power_w is None or hoped.running_w is None or tables.running_w is None:
            return None if self.power_w is None else self.power_w[best]
        busy = hoped.times_s[best] / tables.cautious_times_s[best]
        drawn = hoped.running_w[best] / np.maximum(1e-9, tables.running_w[best])
        power_w: Array = idle_w + busy * drawn * (self.power_w[best] - idle_w)
        return power_w

    def _judge(self) -> None:
        """Say what each setting is worth, of those that serve the load; minus infinity for what is ruled out.

        A power cap is kept by the running batch, if that can be: then no surge exceeds it. Otherwise by the
        mean power on this load, which is less by the pauses between batches.
        """
        self._served = self.regime.possible & (self._ground.largest_per_s > self._ground.load.rate_per_s)
        self.allowed = self._running_under_cap()
        usable = self._usable(self._ground.caps)
        self.feasible = bool((usable & self.in_time).any())
        if not self.feasible and self.allowed is not None and self.power_w is not None:
            self.allowed |= self.power_w <= (self._ground.cap_w or 0.0)
            usable = self._usable(self.regime.at_once.rows)
            self.feasible = bool((usable & self.in_time).any())
        self._choose(usable & self.in_time if self.feasible else self._without_slo())
        self.slo_binds = self.feasible and self._earn_more(usable)

    def _choose(self, among: Mask) -> None:
        """Take the best mean batch of each clock."""
        self.merit: Array = np.where(among, self.revenue_per_s, -np.inf)
        self.best_rows: Rows = self.merit.argmax(axis=0)
        self.best_merits: Array = self.merit[self.best_rows, self._columns]

    def _without_slo(self) -> Mask:
        """Return what comes nearest where nothing keeps the SLO: no delay, whatever the reserve.

        Where nothing can serve the load, or nearly all would be late everywhere, the fast point loses least.
        """
        usable = self._served & ~self.regime.delayed
        usable = usable if self.allowed is None else usable & self.allowed
        if (usable & (self._late_share <= _NOBODY_IN_TIME)).any():
            return usable
        usable = np.zeros(usable.shape, bool)
        usable[min(self.regime.at_once.rows[self.fast], self._ground.caps[self.fast]), self.fast] = True
        self.regime = self.regime._replace(delayed=np.zeros_like(usable))
        return usable

    def _usable(self, rows: Rows) -> Mask:
        """Return what keeps the power cap, serves the load and has the reserve; and choose the fast point."""
        self.fast = self._fastest(rows)
        steady_per_s = self._ground.steady_per_s
        enough = steady_per_s >= needed_per_s(self._ground.reserve_per_s, float(steady_per_s[self.fast]))
        usable = self._served & enough
        return usable if self.allowed is None else usable & self.allowed

    def _fastest(self, rows: Rows) -> int:
        """Return the highest clock that is allowed at these batches, else the one that draws least."""
        if self.allowed is None or self.power_w is None:
            return rows.size - 1
        (found,) = self.allowed[rows, self._columns].nonzero()
        if found.size:
            return int(found[-1])
        return int(self.power_w[self.regime.at_once.rows, self._columns].argmin())

    def _running_under_cap(self) -> Mask | None:
        running_w, cap_w = self._ground.tables.running_w, self._ground.cap_w
        if running_w is None or cap_w is None:
            return None
        return self._ground.idle_w + running_w <= cap_w

    def _earn_more(self, usable: Mask) -> bool:
        """Whether any of these earns more than the best that keeps the SLO."""
        return bool(((self.revenue_per_s > self.best_merits.max()) & usable).any())

    def _off_the_edge(self) -> Mask:
        """Whether a delay leaves a little of the SLO: most images of a delayed batch wait equally long.

        Where nothing is delayed few latencies come near the longest; where batches are, a small error would
        make all of them late at once.
        """
        kept: Mask = self.regime.gathered_longest_s <= self._ground.edge_s
        kept |= ~self.regime.delayed
        return kept

    def _power(self) -> Array | None:
        """Return the mean power: what a running batch draws, for the share of time in which one runs."""
        running_w, regime = self._ground.tables.running_w, self.regime
        if running_w is None:
            return None
        rows, columns, images = regime.at_once.rows, self._columns, self._ground.sizes.images
        below = np.maximum(rows - 1, 0)
        back = (images[rows] - regime.at_once.mean) / np.maximum(1.0, images[rows] - images[below])
        above_w = running_w[rows, columns]
        usual_w = above_w - back * (above_w - running_w[below, columns])
        power_w: Array = regime.busy * running_w
        power_w[rows, columns] = regime.busy[rows, columns] * usual_w
        power_w += self._ground.idle_w
        return power_w
