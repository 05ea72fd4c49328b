"""What was measured where, and how far a model's prediction is off in that neighbourhood.

A physical model with few coefficients says what to expect at settings that were never tried; near those
that were tried, the measurement knows better. So measurements are kept in cells of similar batch size and
clock, and a prediction is multiplied by the mean ratio of measured to predicted in the cells around it, which
fades to 1 with distance.

A mean power was measured while batches ran for some share of the time only. What they drew follows from it
only together with an idle power, and that is a belief which changes; so cells keep what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cell: TypeAlias = tuple[float, float, float, float]
"""Batch, clock, value, and the share of the time in which batches ran."""

_CELL_WIDTH = 0.1
_WIDTHS = 0.3, 0.07
"""Of batch size and clock."""
_PRIOR_WEIGHT = 0.3
_NEW_WEIGHT = 0.3
_AGING = 0.995
_MOST_CELLS = 96
_MOST_WEIGHT, _LIGHT = 4.0, 3.0
_ONE_THREAD = 2**18
"""Multiplications of a matrix product that OpenBLAS leaves to the calling thread."""
_MOST_RATIO = 3.0


class LocalCorrection:
    """Keeps measured values by batch size and clock; corrects a table of predictions. Widths are logarithmic.

    How near a cell is to every row and column is kept beside it: a window moves a few cells, if any, most
    along one axis only, and a table needs all.

    Args:
        sizes: batch sizes of the table's rows, ascending.
        clocks: of its columns, in any unit; a single 1 without clocks.
    """

    def __init__(self, sizes: Array, clocks: Array) -> None:
        self._axes = np.log(sizes) / _WIDTHS[0], np.log(clocks) / _WIDTHS[1]
        self._slots: dict[tuple[int, int], int] = {}
        self._cells = [(0.0, 0.0, 0.0, 1.0)] * _MOST_CELLS
        self._figures, self._weights = np.zeros((_MOST_CELLS, 4)), np.zeros(_MOST_CELLS)
        self._moved: tuple[set[int], set[int]] = set(), set()
        self._near = np.zeros((_MOST_CELLS, sizes.size)), np.zeros((_MOST_CELLS, clocks.size))

    def age(self) -> None:
        """Let everything kept count a little less."""
        self.forget(_AGING)

    def observe(
        self, batch: float, clock: float, value: float, weight: float = 1.0, busy: float = 1.0
    ) -> None:
        """Keep a measured positive value; a settled cell moves by up to `_NEW_WEIGHT` of the difference.

        `busy` is the share of the time in which batches ran, of which the value is a mean.
        """
        self.observe_at(clock, ((batch, value, weight),), busy)

    def observe_at(
        self, clock: float, measured: Iterable[tuple[float, float, float]], busy: float = 1.0
    ) -> None:
        """Keep what was measured at one clock: batch size, value and weight of each."""
        at, touched = round(math.log(clock) / _CELL_WIDTH * 4), set()
        for batch, value, weight in measured:
            key = round(math.log(batch) / _CELL_WIDTH), at
            slot = self._slots.get(key)
            if slot is None:
                slot = self._free_slot(key)
                self._moved[1].add(slot)
                self._cells[slot], self._weights[slot] = (batch, clock, value, busy), weight
            else:
                self._pull(slot, (batch, clock, value, busy), weight)
            touched.add(slot)
        if touched:
            self._moved[0].update(touched)
            self._figures[list(touched)] = [self._cells[slot] for slot in touched]

    def _pull(self, slot: int, found: Cell, weight: float) -> None:
        """Move a cell, and what it holds, towards a measurement."""
        its_batch, its_clock, its_value, its_busy = self._cells[slot]
        batch, clock, value, busy = found
        its_weight = self._weights.item(slot)
        share = _share(weight, its_weight)
        if clock != its_clock:
            clock = its_clock + share * (clock - its_clock)
            self._moved[1].add(slot)
        batch = its_batch + share * (batch - its_batch)
        value = its_value * (value / its_value) ** share
        self._cells[slot] = batch, clock, value, its_busy + share * (busy - its_busy)
        self._weights[slot] = min(_MOST_WEIGHT, its_weight + weight)

    def forget(self, share: float) -> None:
        """Keep only this share of every cell's weight: the present is different from the past."""
        self._weights *= share

    def table(self, predict: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
        """Return the factor for every size (rows) and clock (columns), and how well each is known, 0 to 1.

        Args:
            predict: the model's predictions at batch sizes and clocks, for the same quantity as observed.
        """
        weight, factor = self._weighed(predict)
        known = weight + 1.0
        return factor, np.divide(weight, known, out=known)

    def factor(self, predict: Callable[[Array, Array], Array], idle: float | None = None) -> Array:
        """Return only the factor of `table`; of values that are so much while nothing runs."""
        return self._weighed(predict, idle)[1]

    def _weighed(
        self, predict: Callable[[Array, Array], Array], idle: float | None = None
    ) -> tuple[Array, Array]:
        """Return the weight of what was measured around every size and clock, and the factor there."""
        count = len(self._slots)
        if not count:
            shape = self._axes[0].size, self._axes[1].size
            return np.zeros(shape), np.ones(shape)
        self._place()
        near_size, near_clock = self._near[0][:count], self._near[1][:count]
        weighty = near_size.T * self._weights[:count]
        weight = _product(weighty, near_clock)
        weighty *= self._log_ratios(predict, count, idle)
        factor = _product(weighty, near_clock)
        factor /= weight + _PRIOR_WEIGHT
        return weight, np.exp(factor, out=factor)

    def _log_ratios(self, predict: Callable[[Array, Array], Array], count: int, idle: float | None) -> Array:
        """Return how far what was measured is off from predictions, cell by cell."""
        batches, clocks, values, busy = self._figures[:count].T
        ratios: Array = np.maximum(1e-12, predict(batches, clocks))
        if idle is not None:
            values = np.maximum(1e-12, (values - idle * (1.0 - busy)) / busy)
        np.divide(values, ratios, out=ratios)
        np.maximum(1.0 / _MOST_RATIO, ratios, out=ratios)
        np.minimum(_MOST_RATIO, ratios, out=ratios)
        return np.log(ratios, out=ratios)

    def state(self) -> list[list[float]]:
        """Return what is kept, for `restore`."""
        return [self._state_of(slot) for slot in self._slots.values()]

    def _state_of(self, slot: int) -> list[float]:
        batch, clock, value, busy = map(float, self._cells[slot])
        return [batch, clock, value, self._weights.item(slot), busy]

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Start from what `state` returned. Raises ValueError or TypeError for anything else."""
        cells = [_cell(*cell) for cell in state]
        self._slots.clear()
        for batch, clock, value, weight, busy in cells:
            self.observe(batch, clock, value, weight, busy)

    def _free_slot(self, key: tuple[int, int]) -> int:
        """Give a cell the next slot; when all are taken that of the lightest cell, which is dropped."""
        if len(self._slots) < _MOST_CELLS:
            slot = len(self._slots)
        else:
            lightest = int(self._weights[list(self._slots.values())].argmin())
            slot = self._slots.pop(list(self._slots)[lightest])
        self._slots[key] = slot
        return slot

    def _place(self) -> None:
        """Find anew how near cells that moved along an axis are to each place on it: 1 where they meet."""
        for moved, near, axis, its, width in zip(
            self._moved, self._near, self._axes, self._figures.T, _WIDTHS, strict=False
        ):
            if not moved:
                continue
            slots = np.array(list(moved))
            at = np.log(its.take(slots))
            at /= width
            distance = axis - at[:, None]
            distance *= distance
            distance *= -0.5
            near[slots] = np.exp(distance, out=distance)
            moved.clear()


def _cell(
    batch: float, clock: float, value: float, weight: float, busy: float = 1.0
) -> tuple[float, float, float, float, float]:
    """Return a saved cell, one of an earlier build without `busy` too; raise ValueError if it is none."""
    cell = batch, clock, value, weight, busy
    positive = 0.0 not in (batch, clock, value, busy) and busy <= 1.0
    if not positive or not all(0.0 <= number < math.inf for number in cell):
        raise ValueError(f"expected batch, clock, value, weight and busy of what was measured, got {cell}")
    return cell


def _share(weight: float, its_weight: float) -> float:
    """Return by how much of the difference a cell moves towards a measurement: a light one all but jumps."""
    share = _NEW_WEIGHT * min(1.0, weight)
    return max(share, weight / (its_weight + weight)) if its_weight < _LIGHT else share


def _product(left: Array, right: Array) -> Array:
    """Return the matrix product, a few rows at a time.

    A larger product is shared among threads by the library below, which on a busy machine wait for each other
    for milliseconds; in pieces it takes microseconds.
    """
    rows = max(1, _ONE_THREAD // right.size)
    product = np.empty((len(left), right.shape[1]))
    for start in range(0, len(left), rows):
        np.matmul(left[start : start + rows], right, out=product[start : start + rows])
    return product
