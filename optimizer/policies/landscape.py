"""What every setting would earn on the present load, from everything learned so far.

A setting is a mean batch and a clock. The clock decides the largest batch that may be formed (it must fit into
the SLO), and the mean batch the delay that gathers it; so each (mean batch, clock) is one legal
operating point, and all of them are scored at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.models.batch_regime import Load, largest_in_time, overflow_share, regimes
from optimizer.models.batch_time import BatchTimeModel
from optimizer.models.local_correction import LocalCorrection
from optimizer.models.power import PowerModel
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Prediction
from optimizer.revenue import Outcome, Targets, score
from optimizer.telemetry import BatchTimes, Window

Array = NDArray[np.float64]

_EVERY_SIZE_UP_TO = 16
_COARSE_SIZES = 60
_LEAST_BUSY = 0.02
_FULLY_COUNTED = 0.2
"""A window that was busy for this share says all about the power of running; a less busy one less."""
_FULL_WEIGHT_BATCHES = 8
_MOST_ANCHORS = 8
_DOUBTFUL = 1.25
"""How much longer than expected a batch of a size that never ran may take."""


class Tables(NamedTuple):
    """Rows are batch sizes, columns clocks. `known` is 0 where nothing near was measured, up to 1."""

    times_s: Array
    cautious_times_s: Array
    running_w: Array | None
    known: Array


class Machine:
    """What was learned of the engine and the device: batch times and power at every size and clock.

    Args:
        grid: the legal settings.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._clocks_mhz = grid.sm_clocks_mhz or None
        self.sizes = batch_sizes(grid.batch_limits[-1])
        self._highest = float(grid.sm_clocks_mhz[-1]) if grid.sm_clocks_mhz else 1.0
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        highest = self._clocks_mhz[-1] if self._clocks_mhz else None
        clocks = np.array(self._clocks_mhz or (1,), float)
        self._time = BatchTimeModel(highest)
        self._power = PowerModel(highest)
        self._measured_times = LocalCorrection(self.sizes, clocks)
        self._measured_power = LocalCorrection(self.sizes, clocks)
        self._anchors: dict[float, float] = {}

    @property
    def ready(self) -> bool:
        """Whether any batch was seen."""
        return self._time.ready

    @property
    def knows_power(self) -> bool:
        """Whether any energy was measured."""
        return self._power.ready

    @property
    def idle_w(self) -> float:
        """Power while nothing runs."""
        return self._power.idle_w if self._power.ready else 0.0

    def learn_times(self, batches: Mapping[int, BatchTimes], set_mhz: int | None, mhz: int | None) -> None:
        """Learn from batches that ran while one clock was set and another (under a power limit) in force."""
        clock = self._clock(set_mhz)
        self._time.observe(batches, mhz)
        self._measured_times.age()
        for size, times in batches.items():
            if times.count and times.total_s > 0.0:
                seconds = times.total_s / times.count
                self._measured_times.observe(
                    size, clock, seconds, min(1.0, times.count / _FULL_WEIGHT_BATCHES)
                )
                self._anchors[clock] = max(self._anchors.pop(clock, 0.0), float(size))
        while len(self._anchors) > _MOST_ANCHORS:
            del self._anchors[next(iter(self._anchors))]

    def learn_power(self, window: Window, mhz: int | None) -> None:
        """Learn from the energy of a window, if it was measured."""
        joules, duration_s = window.device.energy.joules, window.duration_s
        if joules is None or duration_s <= 0.0:
            return
        work = window_work(window)
        self._power.observe(joules / duration_s, work.busy, work.images_per_s, mhz)
        running_j = joules - self.idle_w * duration_s * (1.0 - work.busy)
        self._measured_power.age()
        if work.busy > _LEAST_BUSY and running_j > 0.0 and self._power.ready:
            clock, share = self._clock(window.point.sm_clock_mhz), min(1.0, work.busy / _FULLY_COUNTED)
            self._measured_power.observe(work.batch, clock, running_j / (work.busy * duration_s), share)

    def error(self, window: Window) -> float | None:
        """Return by which share the batches of a window took longer than expected; None without any."""
        if not self.ready:
            return None
        clock = self._clock(window.point.sm_clock_mhz)
        expected_s = total_s = 0.0
        for size, times in window.traffic.batches.items():
            expected_s += times.count * self._times_at(size, clock)
            total_s += times.total_s
        return total_s / expected_s - 1.0 if expected_s > 0.0 else None

    def doubt(self, share: float) -> None:
        """Keep only this share of what was learned: the machine has changed."""
        for model in (self._time, self._power, self._measured_times, self._measured_power):
            model.forget(share)

    def tables(self) -> Tables:
        """Return what is expected everywhere. Something must have been learned."""
        base_s = self._time.table(self.sizes, self._clocks_mhz)
        factor, known = self._measured_times.table(self._times_at)
        times_s = np.maximum(1e-9, base_s * factor)
        cautious_s = known * times_s + (1.0 - known) * self._doubtful_s(times_s)
        return Tables(times_s, cautious_s, self._running_w(times_s), known)

    def export_state(self) -> dict[str, object]:
        """Return what was learned, for `import_state`."""
        return {
            "time": self._time.export_state() if self.ready else None,
            "power": self._power.export_state() if self._power.ready else None,
            "times": self._measured_times.state(),
            "powers": self._measured_power.state(),
            "anchors": [[clock, size] for clock, size in self._anchors.items()],
        }

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from what `export_state` returned. Raises ValueError, KeyError or TypeError if it is not that."""
        if state["time"] is not None:
            self._time.import_state(state["time"])
        if state["power"] is not None:
            self._power.import_state(state["power"])
        self._measured_times.restore(state["times"])
        self._measured_power.restore(state["powers"])
        self._anchors = {float(clock): float(size) for clock, size in state["anchors"]}

    def _clock(self, clock_mhz: int | None) -> float:
        """Return the clock as the tables have it: a device that refuses to set one runs at its highest."""
        return float(clock_mhz) if clock_mhz is not None and self._clocks_mhz else self._highest

    def _times_at(self, batch: float, clock: float) -> float:
        return self._time.at(None if self._clocks_mhz is None else round(clock)).batch_s(batch)

    def _running_w(self, times_s: Array) -> Array | None:
        if not self._power.ready:
            return None
        base_w = self._power.running_table(self.sizes, times_s, self._clocks_mhz)
        factor, _ = self._measured_power.table(self._running_at)
        result: Array = (base_w + self.idle_w) * factor - self.idle_w
        return np.maximum(0.0, result)

    def _running_at(self, batch: float, clock: float) -> float:
        mhz = None if self._clocks_mhz is None else clock
        return self._power.idle_w + self._power.running_w(batch, self._times_at(batch, clock), mhz)

    def _doubtful_s(self, times_s: Array) -> Array:
        """Return longer times for where nothing was measured, from where something was.

        No batch slows down by more than the clock's period grows, nor takes longer than its images would one
        batch after the other. That far it hardly ever comes, and an alarm watches: half way counts.
        """
        clocks = np.array(self._clocks_mhz or (1,), float)
        bound_s = np.full_like(times_s, np.inf)
        for at, size in self._anchors.items():
            column = min(int(np.searchsorted(clocks, at)), clocks.size - 1)
            row = min(int(np.searchsorted(self.sizes, size)), self.sizes.size - 1)
            in_turn_s = times_s[row, column] * np.maximum(1.0, self.sizes / size)
            there_s = np.minimum(in_turn_s, _DOUBTFUL * times_s[:, column])
            np.minimum(bound_s, np.outer(there_s, np.maximum(1.0, at / clocks)), out=bound_s)
        half_way: Array = np.sqrt(times_s * np.maximum(times_s, bound_s))
        return half_way


class Work(NamedTuple):
    """How busy a window was, with what mean batch, and how many images a second ran."""

    busy: float
    batch: float
    images_per_s: float


def window_work(window: Window) -> Work:
    """Sum up a window's batches."""
    batches = window.traffic.batches
    count = sum(times.count for times in batches.values())
    images = sum(size * times.count for size, times in batches.items())
    total_s = sum(times.total_s for times in batches.values())
    if not count or window.duration_s <= 0.0:
        return Work(0.0, 1.0, 0.0)
    return Work(min(1.0, total_s / window.duration_s), images / count, images / window.duration_s)


def batch_sizes(largest: int) -> Array:
    """Return every small size, and then fewer: a large batch differs little from the next."""
    fine = np.arange(1.0, min(largest, _EVERY_SIZE_UP_TO) + 1.0)
    coarse = np.geomspace(1.0, largest, _COARSE_SIZES).round()
    sizes: Array = np.union1d(fine, coarse[coarse > _EVERY_SIZE_UP_TO])
    return sizes


@dataclass(frozen=True, slots=True)
class Margins:
    """What is kept free for what the models cannot tell.

    Args:
        slo_share: the share of the SLO that a predicted latency may reach.
        overhead_ms: latency that was measured beyond the predicted.
        reserve_per_s: images a second that the capacity must reach; that of the fast point is enough.
    """

    slo_share: float
    overhead_ms: float
    reserve_per_s: float


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
        self._grid, self._sizes = grid, machine.sizes
        self._spare_s = max(1e-4, (targets.slo_p99_ms * margins.slo_share - margins.overhead_ms) / 1e3)
        self._overhead_s = margins.overhead_ms / 1e3
        self.tables = machine.tables()
        self._caps = self._largest(load.rate_per_s, targets.slo_p99_ms / 1e3)
        self._steady = largest_in_time(self.tables.cautious_times_s, self._spare_s / 2.0)
        self._columns = np.arange(self._caps.size)
        self._regime = regimes(self._sizes, self.tables.cautious_times_s, self._caps, load, self._spare_s)
        self._score(machine, load, targets, margins)

    def _largest(self, rate_per_s: float, slo_s: float) -> NDArray[np.intp]:
        """Return the row of the largest batch to form at each clock: any that is answered in time itself.

        A large batch is how a queue that has grown is worked off, so caution must not make it smaller; and a
        clock that is too slow for the load at that size needs all it can get.
        """
        times_s = self.tables.times_s
        caps = largest_in_time(times_s, _LARGEST_BATCH * slo_s)
        capacity = self._sizes[caps] / times_s[caps, np.arange(times_s.shape[1])]
        quickest = np.argmax(self._sizes[:, None] / times_s, axis=0)
        return np.where(capacity < _AMPLE * rate_per_s, np.maximum(caps, quickest), caps)

    @property
    def fast_column(self) -> int:
        """The clock with the most capacity at batches that keep the SLO; among equals the lowest."""
        return self._fast

    def best(self) -> tuple[int, int]:
        """Return row and column of the setting that is expected to earn the most."""
        return self._place(int(np.argmax(self.merit)))

    def best_at(self, column: int) -> tuple[int, int]:
        """Return the best mean batch at one clock."""
        return int(np.argmax(self.merit[:, column])), column

    def top(self, count: int) -> list[tuple[int, int]]:
        """Return the best settings with different clocks, best first."""
        rows = np.argmax(self.merit, axis=0)
        order = np.argsort(-self.merit[rows, self._columns], kind="stable")[:count]
        return [(int(rows[column]), int(column)) for column in order]

    def point(self, row: int, column: int) -> OperatingPoint:
        """Return the legal setting that has this mean batch at this clock."""
        return OperatingPoint(
            self._limit(int(self._caps[column])),
            self._grid.sm_clocks_mhz[column] if self._grid.sm_clocks_mhz else None,
            max_delay_ms=round(1e3 * float(self._regime.delay_s[row, column]), 3),
        )

    def prediction(self, row: int, column: int) -> Prediction:
        """Return what is expected there."""
        power_w = None if self.power_w is None else float(self.power_w[row, column])
        return Prediction(
            self.point(row, column), float(self.revenue_per_s[row, column]), self.p99_ms(row, column), power_w
        )

    def p99_ms(self, row: int, column: int) -> float:
        """Return the latency expected there."""
        return 1e3 * (float(self._regime.longest_s[row, column]) + self._overhead_s)

    def cost_per_s(self, row: int, column: int) -> float:
        """Return what a setting falls short of the most that could be earned: what differs between settings."""
        return self._most_per_s - float(self.merit[row, column])

    def capacity_per_s(self, column: int) -> float:
        """Return the images a second that a clock can serve for long: two of its batches fit into the SLO."""
        return float(self._steady_per_s[column])

    def steady_batch_s(self, column: int) -> float:
        """Return how long such a batch takes."""
        return float(self.tables.cautious_times_s[self._steady[column], column])

    def greedy_row(self, column: int) -> int:
        """Return the mean batch that needs no delay at a clock, or the largest where it is too slow for the load."""
        possible = self._regime.possible[:, column]
        return int(possible.argmax()) if possible.any() else int(self._caps[column])

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
        return bool(self._late_share[row, column] <= _LATE_ALLOWED)

    def under_cap(self, row: int, column: int) -> bool:
        """Whether a running batch is expected to stay under the power cap."""
        return bool(self._allowed[row, column])

    def _score(self, machine: Machine, load: Load, targets: Targets, margins: Margins) -> None:
        regime, rate = self._regime, load.rate_per_s
        capacity = self._sizes[self._caps] / self.tables.times_s[self._caps, self._columns]
        overflow = overflow_share(load, capacity, self._sizes[self._caps] - regime.greedy_images)
        self._late_share = np.minimum(1.0, regime.late_share + np.where(overflow > _RESOLVED, overflow, 0.0))
        late = np.maximum(rate * self._late_share, rate - capacity)
        self.power_w = self._power(machine, regime.busy)
        typical_ms = 1e3 * (0.5 * regime.delay_s + self.tables.times_s)
        outcome = Outcome(1.0, rate - late, late, self.power_w, typical_ms)
        self.revenue_per_s = score(targets, outcome).total
        self._most_per_s = float(np.max(score(targets, Outcome(1.0, rate, 0.0, 0.0, 0.0)).total))
        self._allowed = self._under_cap(machine, targets)
        self._fast = self._fastest()
        self._steady_per_s = (
            self._sizes[self._steady] / self.tables.cautious_times_s[self._steady, self._columns]
        )
        needed = min(margins.reserve_per_s, _NEARLY * self._steady_per_s[self._fast])
        enough = self._steady_per_s >= needed
        usable = regime.possible & self._allowed & (capacity > rate)
        safe = usable & enough & (self._late_share <= _LATE_ALLOWED)
        self.feasible = bool(safe.any())
        usable = safe if self.feasible else usable
        self.merit = np.where(usable, self.revenue_per_s, -np.inf)
        if not usable.any():
            self._last_resort(machine)

    def _last_resort(self, machine: Machine) -> None:
        """Nothing can serve the load: the fast point loses least, or what draws least if that is over the cap."""
        column = self._fast
        if not self._allowed.any() and self.tables.running_w is not None:
            column = int(np.argmin(self.tables.running_w[self._caps, self._columns]))
        self.merit = np.full_like(self.revenue_per_s, -np.inf)
        self.merit[self._caps[column], column] = self.revenue_per_s[self._caps[column], column]
        self._regime = self._regime._replace(delay_s=np.zeros_like(self._regime.delay_s))

    def _power(self, machine: Machine, busy: Array) -> Array | None:
        running_w = self.tables.running_w
        return None if running_w is None else machine.idle_w + busy * running_w

    def _fastest(self) -> int:
        """Return the highest clock that the power cap allows."""
        allowed = self._allowed.any(axis=0)
        return int(np.flatnonzero(allowed)[-1]) if allowed.any() else 0

    def _under_cap(self, machine: Machine, targets: Targets) -> NDArray[np.bool_]:
        running_w = self.tables.running_w
        if running_w is None or targets.power_cap_w is None:
            return np.ones(self._late_share.shape, bool)
        return machine.idle_w + running_w <= targets.power_cap_w

    def _limit(self, cap_row: int) -> int:
        wanted = self._sizes[cap_row]
        limits = self._grid.batch_limits
        return max((limit for limit in limits if limit <= wanted), default=limits[0])

    def _place(self, flat: int) -> tuple[int, int]:
        row, column = divmod(flat, self._columns.size)
        return row, column


_LARGEST_BATCH = 0.9
"""The share of the SLO that the largest batch may take: beyond, nobody in it is answered in time."""
_NEARLY = 0.98
_AMPLE = 1.2
_LATE_ALLOWED = 0.007
_RESOLVED = 0.001
