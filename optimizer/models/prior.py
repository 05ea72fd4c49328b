"""What a prediction says of a machine before it has run, and how much of it to believe as it runs.

A prediction knows shapes better than levels: how batch times and power change with batch size and clock,
more than how high they are. So the first window that was measured gives it its level, and then its shape
stands in for that of the models, which know nothing yet of other clocks. With every window it counts for
less, the sooner the further off it was, until it is let go: what was measured decides in the end.

Where nothing ran yet, physics alone allows much slower batches than are expected. A prediction narrows that,
as far as it is believed, to what it doubts itself or to what it was off by before, whichever is more; and
the further from the first window, the less, where that showed it to be of another machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.models.departure import departure
from optimizer.telemetry import BatchTimes, that_ran

Array = NDArray[np.float64]

_KEPT = 0.9
_LET_GO = 0.05
_LEAST_SPREAD = 0.1
_LEVEL_WEIGHT = 0.5
_DEVIATIONS, _LEAST_DOUBT = 2.0, 0.03
"""So many deviations beyond what was predicted are reckoned with; one is never less than this."""
_SHORTEST_WAY = 1e-12
"""Between a place on an axis and the next; there is none on an axis of one place."""
_IDLE_SHARES = 0.05, 0.5
"""Between these shares of the power of a running batch the idle power is looked for."""
_RUNNING_ALWAYS = 0.9
"""Who is busy for a larger share of the time than this says nothing of idle power."""


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Predicted times and power of batches. Nothing in it was measured here.

    Args:
        sizes: batch sizes, ascending; rows.
        clocks_mhz: SM clocks, ascending; columns. One column and () where no clock is known.
        times_s: of a batch, `[sizes, clocks]`.
        running_w: mean power while a batch runs, idle power included, likewise; None where not predicted.
        spread: standard deviation of the logarithm of the times: 0.1 is about 10 %.

    Raises ValueError for tables of another shape, and for numbers that are not positive.
    """

    sizes: tuple[int, ...]
    clocks_mhz: tuple[float, ...]
    times_s: Array
    running_w: Array | None
    spread: float

    def __post_init__(self) -> None:
        shape = len(self.sizes), max(1, len(self.clocks_mhz))
        for name, axis in (("sizes", self.sizes), ("clocks_mhz", self.clocks_mhz)):
            if list(axis) != sorted(set(axis)) or any(value <= 0 for value in axis):
                raise ValueError(f"{name} must be positive and strictly ascending, got {axis}")
        for name, table in (("times_s", self.times_s), ("running_w", self.running_w)):
            if table is None:
                continue
            if table.shape != shape or not table.size:
                raise ValueError(f"{name} must have the shape {shape}, not empty, got {table.shape}")
            if not (np.isfinite(table).all() and (table > 0.0).all()):
                raise ValueError(f"{name} must be positive everywhere")
        if not 0.0 <= self.spread < math.inf:
            raise ValueError(f"spread must be 0 or more, got {self.spread}")


class Shape:
    """A predicted table in the measure of what was measured.

    Args:
        log_values: logarithms of the predictions by size and clock.
        log_sizes: of the rows.
        log_clocks: of the columns.
        spread: how far it is expected to be off, in logarithms.
    """

    def __init__(self, log_values: Array, log_sizes: Array, log_clocks: Array, spread: float) -> None:
        self._table = np.exp(log_values)
        self._values, self._sizes, self._clocks = log_values, log_sizes, log_clocks
        self._spread, self._deviation = max(_LEAST_SPREAD, spread), max(_LEAST_DOUBT, spread)
        self._level: float | None = None
        self._farther = np.ones(())
        self.trust = 1.0

    @property
    def gauged(self) -> bool:
        """Whether its level is known."""
        return self._level is not None

    @property
    def ready(self) -> bool:
        """Whether its level is known, and it is still believed."""
        return self.gauged and self.trust > 0.0

    def gauge(self, measured: float, expected: float) -> None:
        """Take the level from a measured value and what `predicted` says there."""
        self._level = math.log(measured / expected)

    def gauge_batches(self, batches: Mapping[int, BatchTimes], clock: float) -> None:
        """Take the level from batches that ran, and from how they depart what to doubt elsewhere."""
        found = departure(batches, self.predicted(list(batches), clock), clock)
        self._level = found.level
        self._farther = np.exp(_DEVIATIONS * found.doubt(self._sizes, self._clocks, self._deviation))

    def observe(self, measured: float, expected: float) -> None:
        """Hold against a measurement: believed less each time, and hardly any more once it was far off."""
        found = math.log(measured / expected)
        if self._level is None:
            self._level = found
        error = found - self._level
        self._level += _LEVEL_WEIGHT * error
        self._deviation = max(self._deviation, abs(error))
        self.doubt(_KEPT * math.exp(-0.5 * (error / self._spread) ** 2))

    def doubt(self, share: float) -> None:
        """Believe in it by this share only of what was believed; next to nothing is nothing."""
        self.trust *= share
        self.trust = self.trust if self.trust > _LET_GO else 0.0

    def predicted(self, batches: ArrayLike, clocks: ArrayLike) -> Array:
        """Return what was predicted of batches at clocks, whatever the level; arrays broadcast."""
        row, below, down = _between(self._sizes, np.log(batches))
        column, beside, right = _between(self._clocks, np.log(clocks))
        upper, lower = (
            self._values[at, column] + right * (self._values[at, beside] - self._values[at, column])
            for at in (row, below)
        )
        predicted: Array = np.exp(upper + down * (lower - upper))
        return predicted

    def blended_at(self, batches: Array, clocks: Array | float, other: Array) -> Array:
        """Return the mean of this and another opinion, by trust."""
        return self.trust * self._scale * self.predicted(batches, clocks) + (1.0 - self.trust) * other

    def blended(self, other: Array | None) -> Array:
        """Return the same for the whole table; without another opinion this one alone."""
        if other is None:
            return self._table * self._scale
        return self._table * (self.trust * self._scale) + other * (1.0 - self.trust)

    @property
    def _scale(self) -> float:
        return math.exp(self._level or 0.0)

    def narrowed(self, values: Array, worst: Array) -> Array:
        """Return the worst to reckon with: as far as it is believed, what its own doubt leaves possible.

        Args:
            values: what is expected.
            worst: what physics allows.
        """
        bound = values * (math.exp(_DEVIATIONS * self._deviation) * self._farther)
        return worst - self.trust * np.maximum(0.0, worst - bound)


class Forecast:
    """A prior at work on the settings of one machine.

    Args:
        prior: what was predicted.
        sizes: batch sizes of the machine's tables.
        clocks: of their columns; a single one where clocks are not governed.
    """

    def __init__(self, prior: Prior, sizes: Array, clocks: Array) -> None:
        def shape(values: Array) -> Shape:
            table = _resampled(np.log(values), prior, sizes, clocks)
            return Shape(table, np.log(sizes), np.log(clocks), prior.spread)

        self.times = shape(prior.times_s)
        self.power = None if prior.running_w is None else shape(prior.running_w)
        self._idle_w = 0.0

    @property
    def knows_power(self) -> bool:
        """Whether power was predicted, and measured at least once."""
        return self.power is not None and self.power.ready

    def idle_beside(self, measured_w: float | None) -> float:
        """Return the mean of the idle power found and that of another opinion, if there is one, by trust."""
        trust = self.power.trust if self.power is not None and measured_w is not None else 1.0
        return trust * self._idle_w + (1.0 - trust) * (measured_w or 0.0)

    def gauge(self, batches: Mapping[int, BatchTimes], clock: float) -> None:
        """Take the level of the times from a window whose clock was still settling."""
        self.times.gauge_batches(that_ran(batches), clock)

    def observe(self, batches: Mapping[int, BatchTimes], clock: float) -> None:
        """Hold the times against a window that is evidence; the first one gives them their level."""
        if not that_ran(batches):
            return
        if self.times.gauged:
            self.times.observe(*self._totals(batches, clock))
        else:
            self.gauge(batches, clock)

    def gauge_power(self, watts: float, busy: float, batch: float, clock: float) -> None:
        """Take idle power and the level of running power from a window's mean power."""
        if self.power is None or watts <= 0.0 or busy <= 0.0:
            return
        running_w = float(self.power.predicted(batch, clock))
        least, most = (share * running_w for share in _IDLE_SHARES)
        idle_w = (watts - busy * running_w) / (1.0 - busy) if busy < _RUNNING_ALWAYS else least
        idle_w = min(most, max(least, idle_w))
        scale = watts / (idle_w + busy * (running_w - idle_w))
        self._idle_w = scale * idle_w
        self.power.gauge(scale * running_w, running_w)

    def gauge_power_once(self, watts: float, busy: float, batch: float, clock: float) -> bool:
        """Take the level of the power unless it is known; say whether it was taken."""
        if self.power is None or self.power.gauged:
            return False
        self.gauge_power(watts, busy, batch, clock)
        return self.power.gauged

    def observe_power(self, running_w: float, batch: float, clock: float) -> None:
        """Hold the power against the measured power of running batches, idle power included."""
        if self.power is not None:
            self.power.observe(running_w, float(self.power.predicted(batch, clock)))

    def doubt(self, share: float) -> None:
        """Keep only this share of the trust: the machine has changed."""
        self.times.doubt(share)
        self.doubt_power(share)

    def doubt_power(self, share: float) -> None:
        """Keep only this share of the trust in its power."""
        if self.power is not None:
            self.power.doubt(share)

    def _totals(self, batches: Mapping[int, BatchTimes], clock: float) -> tuple[float, float]:
        """Return what all batches took, and what they were predicted to."""
        ran = that_ran(batches)
        counts = np.array([times.count for times in ran.values()], float)
        expected_s = float(counts @ self.times.predicted(list(ran), clock))
        return sum(times.total_s for times in ran.values()), expected_s


def _resampled(values: Array, prior: Prior, sizes: Array, clocks: Array) -> Array:
    """Return logarithms at other sizes and clocks: straight between, as at the nearest one beyond."""
    rows, wanted = np.log(np.array(prior.sizes, float)), np.log(sizes)
    tall = np.column_stack([np.interp(wanted, rows, column) for column in values.T])
    if not prior.clocks_mhz:
        return np.repeat(tall, clocks.size, axis=1)
    columns = np.log(np.array(prior.clocks_mhz, float))
    return np.vstack([np.interp(np.log(clocks), columns, row) for row in tall])


def _between(axis: Array, values: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return the places before and after values, and how far these lie from the one to the other: 0 to 1."""
    before = np.clip(np.searchsorted(axis, values, side="right") - 1, 0, max(0, axis.size - 2))
    after = np.minimum(before + 1, axis.size - 1)
    way = np.maximum(axis[after] - axis[before], _SHORTEST_WAY)
    return before, after, np.clip((values - axis[before]) / way, 0.0, 1.0)
