"""How long batches may take at most, and at least, for what was measured at a few clocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DOUBTFUL = 1.25
"""How much longer than expected a batch of a size that never ran may take."""


class Reach:
    """Carries what was measured at some clocks to all others. What depends on the clocks only is found once.

    Args:
        anchors: clocks at which batches ran, ascending, each with the largest batch that did.
        sizes: batch sizes of the tables' rows, ascending.
        clocks: of their columns.
    """

    def __init__(self, anchors: Sequence[tuple[float, float]], sizes: Array, clocks: Array) -> None:
        self.anchors = anchors
        self._clocks = clocks
        self._at, largest = np.array(anchors, float).reshape(-1, 2).T
        self._columns = np.minimum(np.searchsorted(clocks, self._at), clocks.size - 1)
        self._rows = np.minimum(np.searchsorted(sizes, largest), sizes.size - 1)
        self._in_turn = np.maximum(1.0, sizes[:, None] / largest)
        self._lower = np.searchsorted(self._at, clocks, side="right")
        self._higher = self._at.size - self._lower
        self._places = self._rows * clocks.size + self._columns

    def slowest_s(self, times_s: Array) -> Array:
        """Return the longest times that what was measured somewhere allows elsewhere.

        No batch slows down by more than the clock's period grows, nor takes longer than its images would one
        batch after the other. So of what was measured at lower clocks the least time counts, and at higher
        ones the least number of cycles.
        """
        there_s = times_s.take(self._columns, axis=1)
        there_s *= _DOUBTFUL
        np.minimum(self._in_turn * times_s.take(self._places), there_s, out=there_s)
        slowest_s = _least_of_first((there_s * self._at)[:, ::-1]).take(self._higher, axis=1)
        slowest_s /= self._clocks
        from_lower_s = _least_of_first(there_s).take(self._lower, axis=1)
        return np.minimum(slowest_s, from_lower_s, out=slowest_s)

    def least_s(self, times_s: Array) -> Array:
        """Return the shortest times that what was measured somewhere allows elsewhere.

        No batch is quicker at a lower clock, nor gains more from a higher one than its period shrinks.
        """
        there_s = -times_s.take(self._columns, axis=1)
        least_s = _least_of_first(there_s * self._at).take(self._lower, axis=1)
        least_s /= self._clocks
        from_higher_s = _least_of_first(there_s[:, ::-1]).take(self._higher, axis=1)
        return np.negative(np.minimum(least_s, from_higher_s, out=least_s), out=least_s)

    def least_at_s(self, times_s: Array, rows: NDArray[np.intp], column: int) -> Array:
        """Return the same for some rows of one column."""
        clock = self._clocks[column]
        there_s = times_s[rows][:, self._columns]
        least_s: Array = np.where(self._at <= clock, there_s * self._at / clock, there_s).max(axis=1)
        return least_s


def _least_of_first(values: Array) -> Array:
    """Return for every row the least of its first 0, 1, ... values; infinity of none."""
    least = np.empty((len(values), values.shape[1] + 1))
    least[:, 0] = np.inf
    np.minimum.accumulate(values, axis=1, out=least[:, 1:])
    return least
