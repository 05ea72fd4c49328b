"""Measured points of batch time and power, interpolated in batch and clock."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizer.settings_table import SettingsError

COLUMNS = ("batch", "sm_clock_mhz", "latency_ms", "power_w")


@dataclass(frozen=True, slots=True)
class ClockSweep:
    """One batch size measured at ascending clocks."""

    batch: int
    clocks_mhz: tuple[float, ...]
    latencies_ms: tuple[float, ...]
    powers_w: tuple[float, ...]

    def latency_ms(self, clock_mhz: float) -> float:
        """Return the batch time at a clock, linear between measured clocks."""
        return float(np.interp(clock_mhz, self.clocks_mhz, self.latencies_ms))

    def power_w(self, clock_mhz: float) -> float:
        """Return the power at a clock, linear between measured clocks."""
        return float(np.interp(clock_mhz, self.clocks_mhz, self.powers_w))


@dataclass(frozen=True, slots=True)
class SurfacePhysics:
    """Measured sweeps, one per batch size, ascending; linear between batch sizes.

    Beyond the measured batch sizes the time goes on along the nearest two (in proportion to the batch where
    there is only one), and the power stays that of the nearest.
    """

    sweeps: tuple[ClockSweep, ...]

    @property
    def clock_range_mhz(self) -> tuple[float, float]:
        """The clocks that every batch size was measured across."""
        return max(s.clocks_mhz[0] for s in self.sweeps), min(s.clocks_mhz[-1] for s in self.sweeps)

    def batch_s(self, batch: int, clock_mhz: float) -> float:
        """Return the seconds that one batch takes."""
        low, high = self._around(batch)
        low_ms, high_ms = low.latency_ms(clock_mhz), high.latency_ms(clock_mhz)
        if low is high:
            return low_ms * batch / low.batch / 1e3
        latency_ms = low_ms + (high_ms - low_ms) * (batch - low.batch) / (high.batch - low.batch)
        return max(latency_ms, min(low_ms * batch / low.batch, low_ms)) / 1e3

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        """Return the mean power while that batch runs."""
        sizes = [sweep.batch for sweep in self.sweeps]
        return float(np.interp(batch, sizes, [sweep.power_w(clock_mhz) for sweep in self.sweeps]))

    def _around(self, batch: int) -> tuple[ClockSweep, ClockSweep]:
        last = len(self.sweeps) - 1
        high = min(max(1, bisect_left(self.sweeps, batch, key=lambda sweep: sweep.batch)), last)
        return self.sweeps[max(0, high - 1)], self.sweeps[high]


def load_surface(path: Path) -> SurfacePhysics:
    """Read measured points from a CSV file with the columns `COLUMNS`, in any order of rows.

    Raises:
        SettingsError: the file is unreadable, lacks a column, or a value is not a positive number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise SettingsError(f"{path}: expected a first line {','.join(COLUMNS)} and then measured points")
    points = [_point(path, line, row) for line, row in enumerate(rows, start=2)]
    return SurfacePhysics(_sweeps(path, points))


Point = tuple[float, float, float, float]


def _point(path: Path, line: int, row: dict[str, str]) -> Point:
    def value(column: str) -> float:
        try:
            number = float(row[column])
        except (TypeError, ValueError):
            number = -1.0
        if not 0.0 < number < float("inf") or (column == "batch" and number != int(number)):
            kind = "a whole number" if column == "batch" else "a number"
            raise SettingsError(f"{path}: line {line}: {column} = {row[column]!r}; expected {kind} above 0")
        return number

    batch, clock_mhz, latency_ms, power_w = (value(column) for column in COLUMNS)
    return batch, clock_mhz, latency_ms, power_w


def _sweeps(path: Path, points: Sequence[Point]) -> tuple[ClockSweep, ...]:
    by_batch: dict[int, list[Point]] = defaultdict(list)
    for point in sorted(points):
        by_batch[int(point[0])].append(point)
    for batch, sweep in by_batch.items():
        clocks = [point[1] for point in sweep]
        if len(set(clocks)) != len(clocks):
            raise SettingsError(f"{path}: batch {batch} names a clock twice; give one point for each")
    return tuple(
        ClockSweep(batch, *(tuple(column) for column in zip(*(point[1:] for point in sweep), strict=True)))
        for batch, sweep in by_batch.items()
    )
