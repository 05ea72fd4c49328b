"""Measured points of batch time and power, interpolated in batch and clock."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer.settings_table import SettingsError

COLUMNS = ("batch", "sm_clock_mhz", "latency_ms", "power_w")


@dataclass(frozen=True, slots=True)
class ClockSweep:
    """One batch size measured at ascending clocks, linear between them.

    Beyond the measured clocks nothing is gained: above, time and power stay as measured at the highest;
    below, the time goes in inverse proportion to the clock, and the power stays. So no search is drawn to
    where nobody measured.
    """

    batch: int
    clocks_mhz: tuple[float, ...]
    latencies_ms: tuple[float, ...]
    powers_w: tuple[float, ...]

    def latency_ms(self, clock_mhz: float) -> float:
        """Return the batch time at a clock."""
        slower = max(1.0, self.clocks_mhz[0] / clock_mhz)
        return _between(clock_mhz, self.clocks_mhz, self.latencies_ms) * slower

    def power_w(self, clock_mhz: float) -> float:
        """Return the power at a clock."""
        return _between(clock_mhz, self.clocks_mhz, self.powers_w)


def _between(clock_mhz: float, clocks_mhz: Sequence[float], values: Sequence[float]) -> float:
    high = bisect_left(clocks_mhz, clock_mhz)
    if high in (0, len(clocks_mhz)):
        return values[min(high, len(values) - 1)]
    share = (clock_mhz - clocks_mhz[high - 1]) / (clocks_mhz[high] - clocks_mhz[high - 1])
    return values[high - 1] + share * (values[high] - values[high - 1])


@dataclass(frozen=True, slots=True)
class SurfacePhysics:
    """Measured sweeps, one per batch size, ascending; linear between batch sizes.

    Beyond the measured batch sizes the time goes on along the nearest two, within reason: a smaller batch
    takes no longer than the smallest measured one, which it could be padded to, a larger one no less than the
    largest, and neither gains on being in proportion to the batch. With one size measured, smaller ones are
    padded and larger ones in proportion. The power stays that of the nearest.
    """

    sweeps: tuple[ClockSweep, ...]

    @property
    def clock_range_mhz(self) -> tuple[float, float]:
        """The lowest and the highest clock that any batch size was measured at."""
        return min(s.clocks_mhz[0] for s in self.sweeps), max(s.clocks_mhz[-1] for s in self.sweeps)

    def batch_s(self, batch: int, clock_mhz: float) -> float:
        """Return the seconds that one batch takes."""
        low, high = self._around(batch)
        low_ms, high_ms = low.latency_ms(clock_mhz), high.latency_ms(clock_mhz)
        latency_ms = low_ms + (high_ms - low_ms) * _share(batch, low, high)
        if batch < low.batch:
            latency_ms = min(max(latency_ms, low_ms * batch / low.batch), low_ms)
        if batch > high.batch:
            proportional_ms = high_ms * batch / high.batch
            latency_ms = proportional_ms if low is high else min(max(latency_ms, high_ms), proportional_ms)
        return latency_ms / 1e3

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        """Return the mean power while that batch runs."""
        low, high = self._around(batch)
        low_w, high_w = low.power_w(clock_mhz), high.power_w(clock_mhz)
        return low_w + (high_w - low_w) * min(1.0, max(0.0, _share(batch, low, high)))

    def _around(self, batch: int) -> tuple[ClockSweep, ClockSweep]:
        last = len(self.sweeps) - 1
        high = min(max(1, bisect_left(self.sweeps, batch, key=lambda sweep: sweep.batch)), last)
        return self.sweeps[max(0, high - 1)], self.sweeps[high]


def _share(batch: int, low: ClockSweep, high: ClockSweep) -> float:
    return (batch - low.batch) / (high.batch - low.batch) if high is not low else 0.0


def load_surface(path: Path) -> SurfacePhysics:
    """Read measured points from a CSV file with the columns `COLUMNS`, in any order.

    Rows may come in any order; empty lines, lines that begin with # and further columns are passed over.

    Raises:
        SettingsError: the file is unreadable, lacks a column, or a value is not a positive number.
    """
    lines = ((number, line) for number, line in _lines(path) if line.strip() and line[0] != "#")
    rows = [(number, _cells(path, number, line)) for number, line in lines]
    names = rows[0][1] if rows else []
    if any(names.count(column) != 1 for column in COLUMNS) or len(rows) == 1:
        raise SettingsError(f"{path}: expected a first line {','.join(COLUMNS)} and then measured points")
    return SurfacePhysics(_sweeps(path, [_point(path, number, names, cells) for number, cells in rows[1:]]))


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        return list(enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def _cells(path: Path, line: int, text: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text]))]
    except csv.Error as error:
        raise SettingsError(f"{path}: line {line}: not CSV: {error}") from error


Point = tuple[float, float, float, float]


def _point(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> Point:
    if len(cells) != len(names):
        raise SettingsError(f"{path}: line {line}: {len(cells)} values; expected {len(names)}")

    def value(column: str) -> float:
        text = cells[names.index(column)]
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0.0 < number < float("inf") or (column == "batch" and number != int(number)):
            kind = "a whole number" if column == "batch" else "a number"
            raise SettingsError(f"{path}: line {line}: {column} = {text!r}; expected {kind} above 0")
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
