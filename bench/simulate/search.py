"""Searching a grid of settings for the best one, from coarse to fine.

Every setting may win, but not every one is run:

1. A lattice over the whole grid is run: batch limits in steps of a half, clocks in even steps.
2. The best few points of the lattice, and every point that beats its neighbours on it, are starts. From each
   the search climbs to the best neighbour until none is better; then the lattice is made twice as fine, and
   the climb goes on from wherever the starts ended, until the lattice is the grid.
3. From the winner all along both axes, settings are tried at a stride, and close by two limits and a dozen
   clocks to either side, every other clock; whatever is better is climbed from.

Several starts keep it from a local optimum: small batches at a high clock and large ones at a low clock can
both be hills, with late images between them. What remains to be missed is the jitter between neighbours.

A limit larger than any batch that formed changes nothing: such settings are known without being run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from optimizer.operating_point import OperatingPoint

_STARTS = 5
_COARSE_CLOCKS = 13
_STRIDE = 4
_CLOCKS_AROUND = 12

Value = tuple[float, ...]
"""Compared from the left; more is better."""
RunAll = Callable[[list[OperatingPoint]], Iterable["Trial"]]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one setting came to; a larger batch limit than `largest_batch` would have changed nothing."""

    value: Value
    largest_batch: int


def best_setting(
    max_batch: int,
    clocks_mhz: Sequence[int],
    run: RunAll,
    progress: Progress | None = None,
) -> OperatingPoint:
    """Search all batch limits up to `max_batch` with all clocks for the highest value that `run` finds."""
    landscape = _Landscape(range(1, max_batch + 1), clocks_mhz, run, progress)
    limits, clocks = _coarse_limits(max_batch), _coarse_clocks(len(clocks_mhz))
    landscape.try_all((limit, clock) for limit in limits for clock in clocks)
    starts = _starts(landscape, limits, clocks)
    while True:
        starts = [landscape.climb(start, limits, clocks) for start in starts]
        finer = _halved(limits), _halved(clocks)
        if finer == (limits, clocks):
            break
        limits, clocks = finer
    return landscape.point(_confirmed(landscape, max(starts, key=landscape.value), limits, clocks))


Place = tuple[int, int]
"""A setting as a place on the grid: its batch limit, and the index of its clock."""


class _Landscape:
    """Remembers what was tried."""

    def __init__(
        self,
        limits: range,
        clocks_mhz: Sequence[int],
        run: RunAll,
        progress: Progress | None,
    ) -> None:
        self._limits = limits
        self._clocks_mhz = clocks_mhz
        self._run = run
        self._progress = progress
        self._trials: dict[Place, Trial] = {}
        self._largest: dict[int, int] = {}

    def point(self, place: Place) -> OperatingPoint:
        limit, clock = self.canonical(place)
        return OperatingPoint(limit, self._clocks_mhz[clock])

    def value(self, place: Place) -> Value:
        return self._trials[self.canonical(place)].value

    def try_all(self, places: Iterable[Place]) -> None:
        """Run what was not run yet; largest limits first, because they tell about the smaller ones."""
        wanted = sorted(set(places), reverse=True)
        top = [place for place in wanted if place[0] == wanted[0][0]]
        for group in (top, wanted):
            new = list(dict.fromkeys(p for p in map(self.canonical, group) if p not in self._trials))
            for place, trial in zip(new, self._run([self.point(place) for place in new]), strict=True):
                self._learn(place, trial)

    def climb(self, place: Place, limits: Sequence[int], clocks: Sequence[int]) -> Place:
        """Go to the best neighbour on a lattice until none is better."""
        while True:
            place = self.canonical(place)
            around = _around(place, limits, clocks)
            self.try_all(around)
            best = max(around, key=self.value)
            if self.value(best) <= self.value(place):
                return place
            place = best

    def _learn(self, place: Place, trial: Trial) -> None:
        limit, clock = place
        if trial.largest_batch < limit:
            self._largest[clock] = trial.largest_batch
        self._trials[self.canonical(place)] = trial
        if self._progress is not None:
            self._progress(len(self._trials))

    def canonical(self, place: Place) -> Place:
        """Return the smallest limit that gives the same run: beside a larger one nothing would change."""
        limit, clock = place
        return min(limit, self._largest.get(clock, limit)), clock


def _starts(landscape: _Landscape, limits: Sequence[int], clocks: Sequence[int]) -> list[Place]:
    places = sorted(((b, c) for b in limits for c in clocks), key=landscape.value, reverse=True)
    peaks = [
        place
        for place in places
        if all(landscape.value(other) <= landscape.value(place) for other in _around(place, limits, clocks))
    ]
    return list(dict.fromkeys([*places[:_STARTS], *peaks[:_STARTS]]))


def _confirmed(landscape: _Landscape, place: Place, limits: Sequence[int], clocks: Sequence[int]) -> Place:
    """Look along both axes and around for anything better than a peak; climb from there while there is."""

    def near_clocks(place: Place) -> Sequence[int]:
        return _within(clocks, place[1], _CLOCKS_AROUND)[::2]

    while True:
        place = landscape.canonical(place)
        along = [(limit, place[1]) for limit in limits[::_STRIDE]]
        along += [(place[0], clock) for clock in clocks[::_STRIDE]]
        along += [(limit, clock) for limit in _within(limits, place[0], 2) for clock in near_clocks(place)]
        landscape.try_all(along)
        best = max(along, key=landscape.value)
        if landscape.value(best) <= landscape.value(place):
            return place
        place = landscape.climb(best, limits, clocks)


def _coarse_limits(max_batch: int) -> list[int]:
    limits = [1]
    while limits[-1] < max_batch:
        limits.append(min(max_batch, max(limits[-1] + 1, round(limits[-1] * 1.5))))
    return limits


def _coarse_clocks(count: int) -> list[int]:
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, _COARSE_CLOCKS))})


def _halved(axis: Sequence[int]) -> list[int]:
    """Add what lies in the middle between neighbours."""
    return sorted({*axis, *((low + high) // 2 for low, high in pairwise(axis))})


def _around(place: Place, limits: Sequence[int], clocks: Sequence[int]) -> list[Place]:
    return [(b, c) for b in _near(limits, place[0]) for c in _near(clocks, place[1])]


def _near(axis: Sequence[int], value: int) -> Sequence[int]:
    return _within(axis, value, 1)


def _within(axis: Sequence[int], value: int, places: int) -> Sequence[int]:
    index = min(bisect_left(axis, value), len(axis) - 1)
    return axis[max(0, index - places) : index + places + 1]
