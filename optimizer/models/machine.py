"""What was learned of the engine and the device: batch times and power, at every size and clock."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.insight import TriedSetting
from optimizer.models.batch_sizes import sizes_up_to
from optimizer.models.batch_time import BatchTimeModel
from optimizer.models.doubt import Doubt
from optimizer.models.local_correction import LocalCorrection
from optimizer.models.power import PowerModel
from optimizer.models.prior import Forecast, Prior
from optimizer.models.reach import Reach
from optimizer.models.surprise import Hope
from optimizer.operating_point import OperatingGrid
from optimizer.telemetry import BatchTimes, Window, that_ran

Array = NDArray[np.float64]

_LEAST_BUSY = 0.02
_FULLY_COUNTED = 0.2
"""A window that was busy for this share says all about the power of running; a less busy one less."""
_FULL_WEIGHT_BATCHES = 8
_MOST_ANCHORS = 8


class Tables(NamedTuple):
    """Rows are batch sizes, columns clocks. `known` is 0 where nothing near was measured, up to 1."""

    times_s: Array
    slowest_s: Array
    cautious_times_s: Array
    running_w: Array | None
    known: Array

    def from_column(self, first: int) -> Tables:
        """Return the same of the clocks from one on."""
        times_s, slowest_s, cautious_s, running_w, known = self
        running_w = None if running_w is None else running_w[:, first:]
        return Tables(
            times_s[:, first:], slowest_s[:, first:], cautious_s[:, first:], running_w, known[:, first:]
        )


class Hoped(NamedTuple):
    """Times and power of running batches as they may be at best where nothing was measured; as `Tables`."""

    times_s: Array
    running_w: Array | None

    def from_column(self, first: int) -> Hoped:
        """Return the same of the clocks from one on."""
        running_w = None if self.running_w is None else self.running_w[:, first:]
        return Hoped(self.times_s[:, first:], running_w)


class Machine:
    """What was learned of the engine and the device: batch times and power at every size and clock.

    Args:
        grid: the legal settings.
        prior: what was predicted of them; stands in for experience until there is some.
    """

    def __init__(self, grid: OperatingGrid, prior: Prior | None = None) -> None:
        self._prior = prior
        self._clocks_mhz = grid.sm_clocks_mhz or None
        self._clocks = np.array(grid.sm_clocks_mhz or (1,), float)
        self.rows = sizes_up_to(grid.batch_limits[-1])
        self.sizes = self.rows.images
        self._sizes = self.sizes.tolist()
        self._columns = {clock: column for column, clock in enumerate(self._clocks.tolist())}
        self._highest = float(grid.sm_clocks_mhz[-1]) if grid.sm_clocks_mhz else 1.0
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        highest = self._clocks_mhz[-1] if self._clocks_mhz else None
        self._time = BatchTimeModel(highest)
        self._power = PowerModel(highest)
        self._lags, self._paces = self._time.lag(self._clocks), self._power.pace(self._clocks)
        self._measured_times = LocalCorrection(self.sizes, self._clocks)
        self._measured_power = LocalCorrection(self.sizes, self._clocks)
        self._anchors: dict[float, float] = {}
        self._forecast = None if self._prior is None else Forecast(self._prior, self.sizes, self._clocks)
        self._doubt, self._hope = Doubt(), Hope()
        self._believed: Tables | None = None
        self._power_factor: Array | None = None
        self._reached: Reach | None = None

    @property
    def ready(self) -> bool:
        """Whether anything is known of batch times: by evidence, or by a prior with a level."""
        return self._time.ready or (self._forecast is not None and self._forecast.times.ready)

    @property
    def knows_power(self) -> bool:
        """Whether any energy was measured."""
        return self._power.ready or (self._forecast is not None and self._forecast.knows_power)

    @property
    def idle_w(self) -> float:
        """Power while nothing runs."""
        measured_w = self._power.idle_w if self._power.ready else None
        if self._forecast is not None and (measured_w is None or self._forecast.knows_power):
            return self._forecast.idle_beside(measured_w)
        return measured_w or 0.0

    @property
    def busy(self) -> float:
        """The share of the time in which batches ran when power was last measured; 1 where it never was."""
        return self._power.busy

    def gauge(self, window: Window, mhz: int | None) -> None:
        """Take the level of the prior, if there is one, from a window whose clock may have been settling.

        What was measured there is kept nowhere, but for how large a batch has run.
        """
        ran = that_ran(window.traffic.batches)
        if self._forecast is None or not ran:
            return
        clock, work = self._clock(mhz), window_work(window)
        self._forecast.gauge(ran, clock)
        self._anchors[clock] = float(max(ran))
        joules = window.device.energy.joules
        if joules is not None:
            self._forecast.gauge_power(joules / window.duration_s, work.busy, work.batch, clock)

    def learn_times(self, batches: Mapping[int, BatchTimes], set_mhz: int | None, mhz: int | None) -> None:
        """Learn from batches that ran while one clock was set and another (under a power limit) in force."""
        clock = self._clock(set_mhz)
        self._learn_doubt(batches, clock)
        self._time.observe(batches, mhz)
        if self._forecast is not None:
            self._forecast.observe(batches, self._clock(mhz))
        self._measured_times.age()
        ran = that_ran(batches)
        measured = (
            (size, times.total_s / times.count, min(1.0, times.count / _FULL_WEIGHT_BATCHES))
            for size, times in ran.items()
        )
        self._measured_times.observe_at(clock, measured)
        if ran:
            self._anchor(clock, max(ran))

    def _anchor(self, clock: float, largest: int) -> None:
        """Remember that so large a batch ran at a clock, in the order in which clocks were last used."""
        self._anchors[clock] = max(self._anchors.pop(clock, 0.0), float(largest))
        while len(self._anchors) > _MOST_ANCHORS:
            del self._anchors[next(iter(self._anchors))]

    def learn_power(self, window: Window, mhz: int | None) -> None:
        """Learn from the energy of a window, if it was measured."""
        joules, duration_s = window.device.energy.joules, window.duration_s
        if joules is None or duration_s <= 0.0:
            return
        work = window_work(window)
        self._power.observe(joules / duration_s, work.busy, work.images_per_s, mhz)
        if not self._power.ready:
            return
        clock = self._clock(window.point.sm_clock_mhz)
        self._measured_power.age()
        if work.busy > _LEAST_BUSY and joules > 0.0:
            weight = min(1.0, work.busy / _FULLY_COUNTED)
            self._measured_power.observe(work.batch, clock, joules / duration_s, weight, work.busy)
        if self._forecast is not None:
            self._hold_against(self._forecast, joules / duration_s, work, clock)

    def _hold_against(self, forecast: Forecast, watts: float, work: Work, clock: float) -> None:
        """Hold a prediction against a window's mean power; the first one gives it its level."""
        first = forecast.gauge_power_once(watts, work.busy, work.batch, clock)
        if first or work.busy <= _LEAST_BUSY:
            return
        running_w = (watts - self.idle_w * (1.0 - work.busy)) / work.busy
        if running_w > 0.0:
            forecast.observe_power(running_w, work.batch, clock)

    def error(self, window: Window, mhz: int | None) -> float | None:
        """Return by which share a window's batches took longer than expected at the clock in force.

        None when there were none, or nothing was expected.
        """
        return self.error_of(window.traffic.batches, mhz)

    def error_of(self, ran: Mapping[int, BatchTimes], mhz: int | None) -> float | None:
        """Return the same of batches that ran at one clock."""
        if not self.ready:
            return None
        counts = np.array([times.count for times in ran.values()], float)
        expected_s = float(counts @ self._times_at(np.array(list(ran), float), self._clock(mhz)))
        total_s = sum(times.total_s for times in ran.values())
        return total_s / expected_s - 1.0 if expected_s > 0.0 else None

    def doubt(self, share: float) -> None:
        """Keep only this share of what was learned: the machine has changed."""
        self._doubt = Doubt()
        for model in (self._time, self._power, self._measured_times, self._measured_power):
            model.forget(share)
        if self._forecast is not None:
            self._forecast.doubt(share)

    def doubt_power(self, share: float) -> None:
        """Keep only this share of what was learned of power."""
        for model in (self._power, self._measured_power):
            model.forget(share)
        if self._forecast is not None:
            self._forecast.doubt_power(share)

    def tables(self) -> Tables:
        """Return what is expected everywhere. Something must have been learned."""
        base_s = self._base_s()
        times_s, known = self._measured_times.table(self._times_at)
        times_s *= base_s
        np.maximum(1e-9, times_s, out=times_s)
        slowest_s = self._reach.slowest_s(times_s)
        np.maximum(times_s, slowest_s, out=slowest_s)
        cautious_s = np.subtract(1.0, known)
        cautious_s *= self._doubt.share
        cautious_s *= self._feared_s(times_s, slowest_s) - times_s
        cautious_s += times_s
        self._power_factor = None
        if self.knows_power:
            self._power_factor = self._measured_power.factor(self._running_at, self.idle_w)
        self._believed = Tables(times_s, slowest_s, cautious_s, self._running_w(times_s), known)
        return self._believed

    def hoped(self) -> Hoped:
        """Return what the settings may come to at best, as far as first visits before allow such hopes."""
        told = self._believed or self.tables()
        way_s = self._reach.least_s(told.times_s)
        np.subtract(told.times_s, way_s, out=way_s)
        np.maximum(0.0, way_s, out=way_s)
        times_s = np.subtract(1.0, told.known)
        times_s *= self._hope.share
        times_s *= way_s
        np.subtract(told.times_s, times_s, out=times_s)
        return Hoped(times_s, self._running_w(times_s))

    def export_state(self) -> dict[str, object]:
        """Return what was learned, for `import_state`."""
        return {
            "time": self._time.export_state() if self._time.ready else None,
            "power": self._power.export_state() if self._power.ready else None,
            "times": self._measured_times.state(),
            "powers": self._measured_power.state(),
            "anchors": [[clock, size] for clock, size in self._anchors.items()],
            "doubt": self._doubt.export_state(),
            "hope": self._hope.export_state(),
        }

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        if state["time"] is not None:
            self._forecast = None  # what was measured wins over what was predicted
            self._time.import_state(state["time"])
        if state["power"] is not None:
            self._power.import_state(state["power"])
        self._measured_times.restore(state["times"])
        self._measured_power.restore(state["powers"])
        anchors = {float(clock): float(size) for clock, size in state["anchors"]}
        if not all(0.0 < number < math.inf for anchor in anchors.items() for number in anchor):
            raise ValueError(f"expected the largest batch at each clock, got {anchors}")
        self._anchors = anchors
        if "doubt" in state:  # a state that an earlier build wrote has none
            self._doubt.import_state(state["doubt"])
        if "hope" in state:
            self._hope.import_state(state["hope"])

    def _clock(self, clock_mhz: int | None) -> float:
        """Return the clock as the tables have it: a device that refuses to set one runs at its highest."""
        return float(clock_mhz) if clock_mhz is not None and self._clocks_mhz else self._highest

    def _times_at(self, batches: Array, clocks: Array | float) -> Array:
        seconds = self._time.batch_s(batches, np.rint(clocks))
        shape = self._forecast.times if self._forecast is not None else None
        return seconds if shape is None or not shape.ready else shape.blended_at(batches, clocks, seconds)

    def _base_s(self) -> Array:
        """Return what models and prior expect, before local corrections."""
        base_s = self._time.batch_at_s(self.rows.column, self._lags) if self._time.ready else None
        if self._forecast is not None and self._forecast.times.ready:
            return self._forecast.times.blended(base_s)
        assert base_s is not None, "something was learned"  # noqa: S101
        return base_s

    def _running_w(self, times_s: Array) -> Array | None:
        """Return the power of batches that take so long, beyond idle power; as of the latest tables."""
        if self._power_factor is None:
            return None
        running_w = self._base_w(times_s)
        running_w *= self._power_factor
        running_w -= self.idle_w
        return np.maximum(0.0, running_w, out=running_w)

    def _base_w(self, times_s: Array) -> Array:
        """Return the same of the power of a running batch, idle power included."""
        base_w = None
        if self._power.ready:
            base_w = self._power.running_at_w(self.rows.column, times_s, self._paces)
            base_w += self._power.idle_w
        if self._forecast is not None and self._forecast.power is not None and self._forecast.knows_power:
            return self._forecast.power.blended(base_w)
        assert base_w is not None, "power was learned"  # noqa: S101
        return base_w

    def _running_at(self, batches: Array, clocks: Array) -> Array:
        times_s = self._times_at(batches, clocks)
        watts = self._power.running_w(batches, times_s, clocks)
        watts += self._power.idle_w
        shape = self._forecast.power if self._forecast is not None else None
        return watts if shape is None or not shape.ready else shape.blended_at(batches, clocks, watts)

    @property
    def _reach(self) -> Reach:
        anchors = sorted(self._anchors.items())
        if self._reached is None or self._reached.anchors != anchors:
            self._reached = Reach(anchors, self.sizes, self._clocks)
        return self._reached

    def _feared_s(self, times_s: Array, slowest_s: Array) -> Array:
        """Return the longest times to reckon with: those of physics, or what a prediction leaves of them."""
        shape = self._forecast.times if self._forecast is not None else None
        return slowest_s if shape is None or not shape.ready else shape.narrowed(times_s, slowest_s)

    def _learn_doubt(self, batches: Mapping[int, BatchTimes], clock: float) -> None:
        """Compare what was believed before with what these batches took."""
        believed = self._believed
        if believed is None or not any(times.count for times in batches.values()):
            return
        counts = np.array([times.count for times in batches.values()], float)
        column = self._column(clock)
        rows = np.array([min(bisect_left(self._sizes, size), self.rows.last) for size in batches])
        places = rows * self._clocks.size + column
        expected_s = float(believed.times_s.take(places) @ counts)
        slowest_s = float(believed.slowest_s.take(places) @ counts)
        known = float(believed.known.take(places) @ counts / counts.sum())
        measured_s = sum(times.total_s for times in batches.values())
        self._doubt.observe(expected_s, slowest_s, measured_s, 1.0 - known)
        least_s = float(self._reach.least_at_s(believed.times_s, rows, column) @ counts)
        self._hope.observe(expected_s, least_s, measured_s, 1.0 - known)

    def _column(self, clock: float) -> int:
        """Return the column of the nearest clock."""
        column = self._columns.get(clock)
        return int(np.abs(self._clocks - clock).argmin()) if column is None else column

    def tried(self) -> tuple[TriedSetting, ...]:
        """Return what was measured, by clock and batch, with the power that the latest tables have for it."""
        cells = sorted(self._measured_times.state(), key=lambda cell: (cell[1], cell[0]))
        return tuple(self._tried(batch, clock, seconds) for batch, clock, seconds, *_ in cells)

    def _tried(self, batch: float, clock: float, seconds: float) -> TriedSetting:
        places = ((self.sizes, batch), (self._clocks, clock))
        row, column = (int(np.argmin(np.abs(np.log(axis / at)))) for axis, at in places)
        told = self._believed
        running_w = None if told is None else told.running_w
        return TriedSetting(
            batch=round(batch),
            sm_clock_mhz=self._clocks_mhz[column] if self._clocks_mhz else None,
            batch_ms=seconds * 1e3,
            power_w=None if running_w is None else float(running_w[row, column]) + self.idle_w,
            known=0.0 if told is None else float(told.known[row, column]),
        )

    @property
    def doubt_share(self) -> float:
        """How far from the expected towards the slowest possible time guesses are taken to go, 0 to 1."""
        return self._doubt.share


class Work(NamedTuple):
    """How busy a window was, with what mean batch, and how many images a second ran."""

    busy: float
    batch: float
    images_per_s: float


def window_work(window: Window) -> Work:
    """Sum up a window's batches."""
    ran = window.traffic.batches
    counts = [times.count for times in ran.values()]
    count, images = sum(counts), sum(map(mul, ran, counts))
    total_s = sum([times.total_s for times in ran.values()])
    if not count or window.duration_s <= 0.0:
        return Work(0.0, 1.0, 0.0)
    return Work(min(1.0, total_s / window.duration_s), images / count, images / window.duration_s)
