"""What a batching server does at every batch size and clock at once, under a load.

A batch that may wait up to D collects images while the engine is idle: its mean size is m = 1 + l*D, with l
images a second. Without waiting, or when the load is so high that waiting never happens, the server takes what
has come while the batch before ran: m = l*t(m) + exp(-l*t(m)). So a clock has a smallest mean batch, the greedy
one, and every larger one belongs to a delay. An image waits for its batch's delay, or for the batch before if
that takes longer, and then for its own batch.

Near capacity more wait than fit. What overflows is a random walk with drift -(1-r)*B and variance I*r*B per
batch (I: index of dispersion, r: load over capacity), whose maximum has an exponential tail of rate
2*(1-r)/(r*I) per image beyond 0.58 deviations of a step (Siegmund's correction).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_DEVIATIONS = 2.33
_STEP_CORRECTION = 0.583
_LEAST_RATE_PER_S = 1e-3


class Load(NamedTuple):
    """Images a second to expect, and the index of dispersion of their counts (1 for Poisson)."""

    rate_per_s: float
    dispersion: float


class Regime(NamedTuple):
    """Arrays of one row a mean batch and one column a clock, but `capacity_per_s`: one a clock.

    Args:
        possible: whether the mean batch can be had at the clock: no smaller than the greedy one.
        delay_s: to be allowed to a batch; 0 in the greedy row.
        busy: share of time in which a batch runs.
        longest_s: latency that all but a few images keep, without overflow.
        capacity_per_s: images a second in batches of the cap.
    """

    possible: Mask
    delay_s: Array
    busy: Array
    longest_s: Array
    capacity_per_s: Array


def regimes(sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load) -> Regime:
    """Return what a load meets at every mean batch and clock.

    Args:
        sizes: batch sizes, ascending.
        times_s: seconds of a batch of each size (rows) at each clock (columns).
        caps: for each clock the row of the largest batch that the server may form.
        load: what arrives.
    """
    rate = max(_LEAST_RATE_PER_S, load.rate_per_s)
    columns = np.arange(times_s.shape[1])
    capacity = sizes[caps] / times_s[caps, columns]
    arriving = rate * times_s
    self_made = arriving + np.exp(-arriving) <= sizes[:, None]
    greedy = np.where(self_made.any(axis=0), self_made.argmax(axis=0), sizes.size)
    rows = np.arange(sizes.size)[:, None]
    possible = (rows >= greedy) & (rows <= caps)
    delay = np.where(rows > greedy, ((sizes - 1.0) / rate)[:, None], 0.0)
    large = np.searchsorted(sizes, sizes + _DEVIATIONS * np.sqrt(load.dispersion * sizes))
    long = times_s[np.minimum(np.minimum(large, sizes.size - 1)[:, None], np.maximum(caps, rows)), columns]
    return Regime(possible, delay, arriving / sizes[:, None], np.maximum(delay, long) + long, capacity)


def overflow_share(load: Load, capacity_per_s: Array, cap_images: Array, spare_s: Array) -> Array:
    """Return the share of images that wait longer than `spare_s` for more than fits, one a clock."""
    share = np.minimum(1.0 - 1e-9, load.rate_per_s / capacity_per_s)
    tail = 2.0 * (1.0 - share) / (np.maximum(share, 1e-9) * load.dispersion)
    correction = _STEP_CORRECTION * np.sqrt(load.dispersion * share * cap_images)
    waiting = np.maximum(0.0, spare_s) * capacity_per_s
    result: Array = np.exp(-np.minimum(700.0, tail * (waiting + correction)))
    return np.where(load.rate_per_s >= capacity_per_s, 1.0, result)


def largest_in_time(times_s: Array, limit_s: float) -> NDArray[np.intp]:
    """Return for each clock the last row whose batch takes at most `limit_s`; row 0 where none does."""
    fits = times_s <= limit_s
    last: NDArray[np.intp] = fits.shape[0] - 1 - fits[::-1].argmax(axis=0)
    return np.where(fits.any(axis=0), last, 0)


def deviations(images: float, dispersion: float, count: float) -> float:
    """Return `count` standard deviations above a mean number of images."""
    return images + count * math.sqrt(max(1.0, dispersion) * max(1.0, images))
