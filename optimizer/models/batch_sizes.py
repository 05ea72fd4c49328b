"""The batch sizes that tables have rows for, and what follows from them alone: it is found once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_EVERY_SIZE_UP_TO = 16
_COARSE_SIZES = 60


class BatchSizes:
    """Sizes, each a row of a table whose columns are clocks.

    Args:
        images: whole numbers, ascending from 1.
    """

    __slots__ = ("below", "between", "column", "images", "last", "nearest", "row_numbers", "steps")

    def __init__(self, images: Array) -> None:
        self.images, self.column, self.last = images, images[:, None], images.size - 1
        self.row_numbers = np.arange(images.size)[:, None]
        self.steps = np.diff(images)[:, None]
        self.between = (images[1:] + images[:-1]) / 2.0
        whole = np.arange(images[-1] + 1.0)
        self.below: Rows = images.searchsorted(whole, side="right") - 1
        self.nearest: Rows = self.between.searchsorted(whole)

    def row_for(self, images: float) -> int:
        """Return the row of the smallest size for so many images; the last where they do not fit."""
        return min(int(self.images.searchsorted(images)), self.last)

    def per_s(self, rows: Rows, times_s: Array) -> Array:
        """Return the images a second of batches that follow each other, one size a clock.

        Args:
            rows: the size at each clock.
            times_s: seconds of a batch, by size and clock.
        """
        images_per_s: Array = self.images.take(rows)
        images_per_s /= times_s[rows, np.arange(rows.size)]
        return images_per_s


def sizes_up_to(largest: int) -> BatchSizes:
    """Return every small size, and then fewer: a large batch differs little from the next."""
    fine = np.arange(1.0, min(largest, _EVERY_SIZE_UP_TO) + 1.0)
    coarse = np.geomspace(1.0, largest, _COARSE_SIZES).round()
    return BatchSizes(np.union1d(fine, coarse[coarse > _EVERY_SIZE_UP_TO]))
