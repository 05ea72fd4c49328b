"""What was measured where, and how far a model's prediction is off in that neighbourhood.

A physical model with few coefficients says what to expect at settings that were never tried; near those
that were tried, the measurement knows better. So measurements are kept in cells of similar batch size and
clock, and a prediction is multiplied by the mean ratio of measured to predicted in the cells around it, which
fades to 1 with distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CELL_WIDTH = 0.1
_BATCH_WIDTH = 0.3
_CLOCK_WIDTH = 0.07
_PRIOR_WEIGHT = 0.3
_NEW_WEIGHT = 0.3
_AGING = 0.995
_MOST_CELLS = 96
_ONE_THREAD = 2**18
"""Multiplications of a matrix product that OpenBLAS leaves to the calling thread."""
_MOST_LOG_RATIO = math.log(3.0)


@dataclass(slots=True)
class _Cell:
    batch: float
    clock: float
    value: float
    weight: float


class LocalCorrection:
    """Keeps measured values by batch size and clock; corrects a table of predictions. Widths are logarithmic.

    Args:
        sizes: batch sizes of the table's rows, ascending.
        clocks: of its columns, in any unit; a single 1 without clocks.
    """

    def __init__(self, sizes: Array, clocks: Array) -> None:
        self._log_sizes = np.log(sizes)
        self._log_clocks = np.log(clocks)
        self._cells: dict[tuple[int, int], _Cell] = {}

    def age(self) -> None:
        """Let everything kept count a little less."""
        for cell in self._cells.values():
            cell.weight *= _AGING

    def observe(self, batch: float, clock: float, value: float, weight: float = 1.0) -> None:
        """Keep a measured positive value; a settled cell moves by up to `_NEW_WEIGHT` of the difference."""
        key = round(math.log(batch) / _CELL_WIDTH), round(math.log(clock) / _CELL_WIDTH * 4)
        cell = self._cells.get(key)
        if cell is None:
            self._make_room()
            self._cells[key] = _Cell(batch, clock, value, weight)
            return
        share = max(
            _NEW_WEIGHT * min(1.0, weight), weight / (cell.weight + weight) if cell.weight < 3 else 0.0
        )
        cell.batch += share * (batch - cell.batch)
        cell.clock += share * (clock - cell.clock)
        cell.value *= (value / cell.value) ** share
        cell.weight = min(4.0, cell.weight + weight)

    def forget(self, share: float) -> None:
        """Keep only this share of every cell's weight: the present is different from the past."""
        for cell in self._cells.values():
            cell.weight *= share

    def table(self, predict: Callable[[float, float], float]) -> tuple[Array, Array]:
        """Return the factor for every size (rows) and clock (columns), and how well each is known, 0 to 1.

        Args:
            predict: the model's prediction at a batch size and clock, for the same quantity as observed.
        """
        shape = self._log_sizes.size, self._log_clocks.size
        if not self._cells:
            return np.ones(shape), np.zeros(shape)
        predicted = [max(1e-12, predict(cell.batch, cell.clock)) for cell in self._cells.values()]
        batches, clocks, values, weights = np.array(self.state()).T
        ratios = np.log(values / predicted).clip(-_MOST_LOG_RATIO, _MOST_LOG_RATIO)
        near_size = _kernel(self._log_sizes, batches, _BATCH_WIDTH) * weights
        near_clock = _kernel(self._log_clocks, clocks, _CLOCK_WIDTH).T
        known, factor = _product(near_size, near_clock), _product(near_size * ratios, near_clock)
        factor /= known + _PRIOR_WEIGHT
        return np.exp(factor, out=factor), known / (known + 1.0)

    def state(self) -> list[list[float]]:
        """Return what is kept, for `restore`."""
        return [[cell.batch, cell.clock, cell.value, cell.weight] for cell in self._cells.values()]

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Start from what `state` returned. Raises ValueError or TypeError for anything else."""
        cells = [(batch, clock, value, weight) for batch, clock, value, weight in state]
        for cell in cells:
            if not all(0.0 <= number < math.inf for number in cell) or 0.0 in cell[:3]:
                raise ValueError(f"expected batch, clock, value and weight of what was measured, got {cell}")
        self._cells.clear()
        for batch, clock, value, weight in cells:
            self.observe(batch, clock, value, weight)

    def _make_room(self) -> None:
        if len(self._cells) >= _MOST_CELLS:
            del self._cells[min(self._cells, key=lambda key: self._cells[key].weight)]


def _product(left: Array, right: Array) -> Array:
    """Return the matrix product, a few rows at a time.

    A larger product is shared among threads by the library below, which on a busy machine wait for each other
    for milliseconds; in pieces it takes microseconds.
    """
    rows = max(1, _ONE_THREAD // right.size)
    return np.concatenate([left[start : start + rows] @ right for start in range(0, len(left), rows)])


def _kernel(log_axis: Array, at: Array, width: float) -> Array:
    """Return how near each place on an axis (rows) is to others (columns): 1 where they meet."""
    distance = (log_axis[:, None] - np.log(at)) / width
    distance *= distance
    distance *= -0.5
    return np.exp(distance, out=distance)
