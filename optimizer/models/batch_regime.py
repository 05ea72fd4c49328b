"""What a batching server does at every batch size and clock at once, under a load.

A batch that may wait up to D collects images while the engine is idle: its mean size is m = 1 + l*D, with l
images a second. Without waiting, or when the load is so high that waiting never happens, the server takes
what has come while the batch before ran: m = l*t(m) + exp(-l*t(m)). So a clock has a smallest mean batch, the
greedy one, and every larger one belongs to a delay. An image waits for its batch's delay, or for the batch
before if that takes longer, and then for its own batch.

Near capacity more wait than fit. What overflows is a random walk with drift -(1-r)*B and variance I*r*B per
batch (I: index of dispersion, r: load over capacity), whose maximum has an exponential tail of rate
2*(1-r)/(r*I) per image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SPREAD = ((0.0, 0.69), (1.0, 0.24), (2.0, 0.06), (3.0, 0.01))
"""Batches of a normal spread, by deviations above the mean and share; the smaller half counts as the mean."""
_NORMAL = ((-1.0, 0.309), (0.0, 0.383), (1.0, 0.242), (2.0, 0.060), (3.0, 0.006))
_DEVIATIONS, _SHARES = (np.array(column)[:, None] for column in zip(*_NORMAL, strict=True))
_LONGEST = 2.0
_FEW, _HALVINGS = 0.01, 8
_MOST_GAIN = 0.9
_LEAST_RATE_PER_S = 1e-3


class Load(NamedTuple):
    """Images a second to expect, and how unevenly: variance over mean of their counts (1 for Poisson).

    `dispersion` is that of counts over a window, `clumping` that of counts over a batch.
    """

    rate_per_s: float
    dispersion: float
    clumping: float = 1.0


class Regime(NamedTuple):
    """Arrays of one row a mean batch and one column a clock; the last two have one value a clock.

    Args:
        possible: whether the mean batch can be had at the clock: no smaller than the greedy one.
        delay_s: to be allowed to a batch; 0 in the greedy row.
        busy: share of time in which a batch runs.
        late_share: share of the images whose delay or batch before, and own batch, exceed the limit.
        longest_s: latency that all but a few images keep.
        greedy_images: the smallest mean batch, one a clock.
        capacity_per_s: images a second in batches of the cap.
    """

    possible: Mask
    delay_s: Array
    busy: Array
    late_share: Array
    longest_s: Array
    greedy_images: Array
    capacity_per_s: Array


def regimes(sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load, limit_s: float) -> Regime:
    """Return what a load meets at every mean batch and clock.

    Args:
        sizes: batch sizes, ascending.
        times_s: seconds of a batch of each size (rows) at each clock (columns).
        caps: for each clock the row of the largest batch that the server may form.
        load: what arrives.
        limit_s: latency beyond which an image counts as late.
    """
    rate = max(_LEAST_RATE_PER_S, load.rate_per_s)
    rows, columns = np.arange(sizes.size)[:, None], np.arange(times_s.shape[1])
    arriving = rate * times_s
    sustained = arriving + np.exp(-arriving) <= sizes[:, None]
    greedy = np.where(sustained.any(axis=0), sustained.argmax(axis=0), sizes.size)
    waits = rows > greedy
    delay = np.where(waits, ((sizes - 1.0) / rate)[:, None], 0.0)
    greedy_s = times_s[np.minimum(greedy, sizes.size - 1), columns]
    at_once = rate * greedy_s + np.exp(-rate * greedy_s)
    mean = np.where(rows == greedy, np.minimum(at_once, sizes[:, None]), sizes[:, None])
    busy = np.minimum(1.0, arriving / mean)
    late, longest = np.zeros_like(times_s), delay
    longest_batch_s = times_s[np.maximum(caps, rows), columns]
    for deviation, weight in _SPREAD:
        gathered = 1.0 + _deviated(sizes - 1.0, load.clumping, deviation)
        row = np.minimum(np.searchsorted(sizes, gathered), sizes.size - 1)
        own_s = np.minimum(times_s[row], longest_batch_s)
        wait_s = np.maximum(delay, own_s)
        late += weight * np.clip((wait_s + own_s - limit_s) / wait_s, 0.0, 1.0)
        longest = wait_s + own_s if deviation <= _LONGEST else longest
    undelayed = _undelayed(sizes, times_s, np.minimum(greedy, sizes.size - 1), caps, load, limit_s)
    late = np.where(waits, late, busy * undelayed.late_share)
    longest = np.where(waits, longest, undelayed.longest_s)
    late = np.where(times_s[0] > limit_s, 1.0, late)
    capacity = sizes[caps] / times_s[caps, columns]
    usual = sizes[np.minimum(greedy, sizes.size - 1)]
    return Regime((rows >= greedy) & (rows <= caps), delay, busy, late, longest, usual, capacity)


class _Undelayed(NamedTuple):
    """What images meet that find the engine busy, one value a clock: share late, and the 99th percentile."""

    late_share: Array
    longest_s: Array


def _undelayed(
    sizes: Array, times_s: Array, greedy: NDArray[np.intp], caps: NDArray[np.intp], load: Load, limit_s: float
) -> _Undelayed:
    """Return what a server does that takes what has come while the batch before ran.

    The batch before varies, and lasts the longer for an image to come in it; what comes in it varies as well.
    Batch sizes follow each other like n' = Poisson(l*t(n)), so their variance is the mean's over 1 - g^2,
    with g = l*dt/dn what one more image in a batch adds to the next.
    """
    rate = max(_LEAST_RATE_PER_S, load.rate_per_s)
    columns = np.arange(times_s.shape[1])
    mean = rate * times_s[greedy, columns]
    above = np.minimum(greedy + 1, sizes.size - 1)
    step = np.maximum(1e-9, sizes[above] - sizes[greedy])
    gain = np.clip(rate * (times_s[above, columns] - times_s[greedy, columns]) / step, 0.0, _MOST_GAIN)
    largest = np.maximum(caps, greedy)

    def lasts(images: Array) -> Array:
        """Return how long batches of so many images take; the last axis is the clocks."""
        row = np.minimum(np.searchsorted(sizes, images), largest)
        below = np.maximum(row - 1, 0)
        part = np.clip((sizes[row] - images) / np.maximum(1e-9, sizes[row] - sizes[below]), 0.0, 1.0)
        upper = times_s[row, columns]
        lasting: Array = upper - part * (upper - times_s[below, columns])
        return lasting

    before_s = lasts(_deviated(mean, load.clumping / (1.0 - gain**2), _DEVIATIONS))
    wait_s = np.repeat(before_s, len(_NORMAL), axis=0)
    own_s = lasts(_deviated(rate * wait_s, load.clumping, np.tile(_DEVIATIONS, (len(_NORMAL), 1))))
    weight = np.outer(_SHARES, _SHARES).reshape(-1, 1) * wait_s
    weight /= weight.sum(axis=0)

    def beyond(seconds: Array | float) -> Array:
        share: Array = (weight * np.clip((wait_s + own_s - seconds) / wait_s, 0.0, 1.0)).sum(axis=0)
        return share

    low, high = own_s.min(axis=0), (wait_s + own_s).max(axis=0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        exceeded = beyond(middle) > _FEW
        low, high = np.where(exceeded, middle, low), np.where(exceeded, high, middle)
    return _Undelayed(beyond(limit_s), high)


def _deviated(images: Array, dispersion: Array | float, deviation: Array | float) -> Array:
    """Return a number of images so many deviations above its mean, at least 1; arrays broadcast."""
    deviated: Array = np.maximum(1.0, images + deviation * np.sqrt(dispersion * images))
    return deviated


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


def largest_in_time(times_s: Array, limit_s: float) -> NDArray[np.intp]:
    """Return for each clock the last row whose batch takes at most `limit_s`; row 0 where none does."""
    fits = times_s <= limit_s
    last: NDArray[np.intp] = fits.shape[0] - 1 - fits[::-1].argmax(axis=0)
    return np.where(fits.any(axis=0), last, 0)


def deviations(images: float, dispersion: float, count: float) -> float:
    """Return `count` standard deviations above a mean number of images."""
    return images + count * math.sqrt(max(1.0, dispersion) * max(1.0, images))
