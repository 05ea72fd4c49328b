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
_LONGEST = 2.0
_LEAST_RATE_PER_S = 1e-3


class Load(NamedTuple):
    """Images a second to expect, and the index of dispersion of their counts (1 for Poisson)."""

    rate_per_s: float
    dispersion: float


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
    largest = np.maximum(caps, rows)
    for deviation, weight in _SPREAD:
        delayed, undelayed = _batches(sizes, rate * greedy_s, load.dispersion, deviation)
        row = np.where(waits, np.searchsorted(sizes, delayed)[:, None], np.searchsorted(sizes, undelayed))
        own_s = times_s[np.minimum(row, largest), columns]
        wait_s = np.maximum(delay, own_s)
        beyond = np.clip((wait_s + own_s - limit_s) / wait_s, 0.0, 1.0)
        late += weight * np.where(waits, beyond, busy * beyond)
        longest = wait_s + own_s if deviation <= _LONGEST else longest
    late = np.where(times_s[0] > limit_s, 1.0, late)
    capacity = sizes[caps] / times_s[caps, columns]
    usual = sizes[np.minimum(greedy, sizes.size - 1)]
    return Regime((rows >= greedy) & (rows <= caps), delay, busy, late, longest, usual, capacity)


def _batches(sizes: Array, arriving: Array, dispersion: float, deviation: float) -> tuple[Array, Array]:
    """Return the batches so many deviations above the mean: with delay, a row a mean; greedy, one a clock."""
    gathered = sizes - 1.0
    delayed = 1.0 + gathered + deviation * np.sqrt(dispersion * gathered)
    return delayed, np.maximum(1.0, arriving + deviation * np.sqrt(dispersion * arriving))


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
