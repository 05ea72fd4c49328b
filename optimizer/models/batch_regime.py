"""What a batching server does at every batch size and clock at once, under a load.

A mean batch is that of a server that takes what has come, or a larger one, which belongs to a delay: see
`at_once` and `gathering`.

Near capacity more wait than fit. What overflows is a random walk with drift -(1-r)*B and variance I*r*B per
batch (I: index of dispersion, r: load over capacity), whose maximum has an exponential tail of rate
2*(1-r)/(r*I) per image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.models.at_once import AtOnce
from optimizer.models.batch_sizes import BatchSizes, Rows
from optimizer.models.gathering import Block, gathered, gathered_mean_s, others_in
from optimizer.models.load import Load

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Regime(NamedTuple):
    """Arrays of one row a mean batch and one column a clock, but where one value a clock is said.

    Args:
        possible: whether the mean batch can be had at the clock: no smaller than the greedy one.
        delayed: whether it takes a delay.
        gathering_s: the delay that gathers a mean batch, one a row.
        busy: share of time in which a batch runs.
        late_share: share of the images whose delay or batch before, and own batch, exceed the limit.
        gathered_longest_s: latency that all but a few images keep where batches gather.
        at_once: what images meet where they do not.
    """

    possible: Mask
    delayed: Mask
    gathering_s: Array
    busy: Array
    late_share: Array
    gathered_longest_s: Array
    at_once: AtOnce

    @property
    def delay_s(self) -> Array:
        """The delay to be allowed to a batch; 0 in the greedy row."""
        delay_s: Array = np.where(self.delayed, self.gathering_s[:, None], 0.0)
        return delay_s

    def delay_at_s(self, row: int, column: int) -> float:
        """Return the same at one mean batch and clock."""
        return float(self.gathering_s[row]) if self.delayed[row, column] else 0.0

    def longest_s(self, rows: Rows, columns: Rows) -> Array:
        """Return the latency that all but a few images keep at some mean batches and clocks."""
        gathers = rows > self.at_once.rows[columns]
        longest_s = self.gathered_longest_s[rows, columns]
        if not gathers.all():
            longest_s = np.where(gathers, longest_s, self.at_once.longest_s(columns))
        return longest_s


def regimes(
    sizes: BatchSizes, times_s: Array, caps: Rows, load: Load, limit_s: float, lowest: int = 0
) -> Regime:
    """Return what a load meets at every mean batch and clock.

    Args:
        sizes: of the rows.
        times_s: seconds of a batch of each size (rows) at each clock (columns).
        caps: for each clock the row of the largest batch that the server may form.
        load: what arrives.
        limit_s: latency beyond which an image counts as late.
        lowest: the first clock at which it matters what batches meet that gather; below, all of that is late.
    """
    load = load.positive()
    arriving = load.rate_per_s * times_s
    at_once = AtOnce(sizes, times_s, caps, load, arriving)
    waits, gathering_s = sizes.row_numbers > at_once.greedy, others_in(sizes, load) / load.rate_per_s
    rows = slice(int(at_once.greedy[lowest:].min()) + 1, int(caps[lowest:].max()) + 1)
    block = Block(rows, slice(lowest, None), waits[rows, lowest:])
    shortest_s = np.minimum(times_s, times_s[caps, np.arange(caps.size)])[:, block.clocks]
    gather = gathered(sizes, shortest_s, arriving, block, load, limit_s)
    longest_s = np.full(times_s.shape, np.inf)
    longest_s[block.rows, block.clocks] = gather.longest_s
    busy = _busy(sizes, arriving, at_once)
    return Regime(
        possible=(sizes.row_numbers >= at_once.greedy) & (sizes.row_numbers <= caps),
        delayed=waits if gathering_s[min(1, sizes.last)] > 0.0 else waits & (gathering_s > 0.0)[:, None],
        gathering_s=gathering_s,
        busy=busy,
        late_share=_late_share(waits, busy, at_once, block, gather.late_share, limit_s),
        gathered_longest_s=longest_s,
        at_once=at_once,
    )


def mean_latency_s(sizes: BatchSizes, times_s: Array, caps: Rows, load: Load, delayed: Mask) -> Array:
    """Return the mean latency at every mean batch and clock.

    Args:
        sizes: as for `regimes`, like the others.
        times_s: of each size at each clock.
        caps: rows of the largest batches.
        load: what arrives.
        delayed: where batches gather; elsewhere the server takes what has come.
    """
    load = load.positive()
    at_once = AtOnce(sizes, times_s, caps, load, load.rate_per_s * times_s)
    return np.where(delayed, gathered_mean_s(sizes, times_s, caps, load), at_once.mean_s)


def _busy(sizes: BatchSizes, arriving: Array, at_once: AtOnce) -> Array:
    """Return the share of time in which a batch runs; what arrives during batches is used up."""
    busy = np.divide(arriving, sizes.column, out=arriving)
    np.minimum(1.0, busy, out=busy)
    busy.put(at_once.places, at_once.busy)
    return busy


def _late_share(
    waits: Mask, busy: Array, at_once: AtOnce, block: Block, gathered_late: Array, limit_s: float
) -> Array:
    """Put together what is late where batches gather and where they do not."""
    late = np.where(waits, 1.0, busy * at_once.late_share(limit_s))
    np.copyto(late[block.rows, block.clocks], gathered_late, where=block.asked)
    alone_late = at_once.alone_s > limit_s
    if alone_late.any():
        late[:, alone_late] = 1.0
    return late


def overflow_share(load: Load, capacity_per_s: Array, spare_images: Array) -> Array:
    """Return the share of images that find more than `spare_images` beyond the usual before them.

    Args:
        load: what arrives.
        capacity_per_s: images a second in large batches, one a clock.
        spare_images: how many more than usual may wait and still be answered in time, one a clock.
    """
    share = np.minimum(1.0 - 1e-9, load.rate_per_s / capacity_per_s)
    tail = 2.0 * (1.0 - share) / (np.maximum(share, 1e-9) * load.dispersion)
    result: Array = np.exp(-np.minimum(700.0, tail * np.maximum(0.0, spare_images)))
    return np.where(load.rate_per_s >= capacity_per_s, 1.0, result)


def largest_in_time(times_s: Array, limit_s: float) -> Rows:
    """Return for each clock the last row whose batch takes at most `limit_s`; row 0 where none does."""
    fits = times_s <= limit_s
    fits[0] = True
    last: Rows = fits.shape[0] - 1 - fits[::-1].argmax(axis=0)
    return last


def deviations(images: float, dispersion: float, count: float) -> float:
    """Return `count` standard deviations above a mean number of images."""
    return images + count * math.sqrt(max(1.0, dispersion) * max(1.0, images))
