"""Which settings may come next: from anywhere up at once, down in bounded steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from optimizer.operating_point import OperatingGrid, OperatingPoint

_LARGEST_DROP = 0.2
"""A clock may fall by this share in one decision: below lie settings that were never measured."""
_MOST_CLOCKS = 24


def candidates(grid: OperatingGrid, point: OperatingPoint) -> list[OperatingPoint]:
    """Return the settings to choose from at `point`, which is on the grid and among them.

    Any smaller batch limit and the next larger one; clocks from a bounded step below to the highest, thinned
    where there are many. Without a clock in `point` none is proposed.
    """
    limits = grid.batch_limits[: bisect_left(grid.batch_limits, point.batch_limit) + 2]
    clocks = _clocks(grid.sm_clocks_mhz, point.sm_clock_mhz)
    return [OperatingPoint(limit, clock) for limit in limits for clock in clocks]


def _clocks(axis: tuple[int, ...], clock_mhz: int | None) -> Sequence[int | None]:
    if clock_mhz is None:
        return [None]
    here = bisect_left(axis, clock_mhz)
    lowest = min(bisect_left(axis, clock_mhz * (1.0 - _LARGEST_DROP)), max(0, here - 1))
    reachable = axis[lowest:]
    stride = -(-len(reachable) // _MOST_CLOCKS)
    return sorted({*reachable[::stride], clock_mhz, axis[-1]})
