"""What images meet where batches gather: they wait for their batch's delay, or the batch before if longer.

A batch that may wait up to D collects images while the engine is idle: its mean size is m = 1 + l*D, with l
images a second.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.models.at_once import MOST_GAIN
from optimizer.models.batch_sizes import BatchSizes, Rows
from optimizer.models.load import Load

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Amount = TypeVar("Amount", float, NDArray[np.float64])

_SPREAD = ((0.0, 0.69), (1.0, 0.24), (2.0, 0.06), (3.0, 0.01))
"""Batches of a normal spread, by deviations above the mean and share; the smaller half counts as the mean."""
_DEVIATIONS, _SHARES = (np.array(column) for column in zip(*_SPREAD, strict=True))
_DEVIATIONS = _DEVIATIONS[:, None]
_LONGEST = 2
"""The place in the spread of the batches whose latency all but a few images keep."""
_FAR_DEVIATIONS, _STEPS = 3.0, 4
"""A batch is hardly larger than that."""
_EVENLY = 12.0
"""The square of the width of an even spread, over its variance."""
_HARMLESS = 0.4
"""The share of the limit up to which usual latencies do not come near it, however batches follow."""


class Gathered(NamedTuple):
    """By mean batch and clock: the share that is late, and the latency that all but a few images keep."""

    late_share: Array
    longest_s: Array


class Block(NamedTuple):
    """The part of a table where batches gather, and the settings in it of which that is asked."""

    rows: slice
    clocks: slice
    asked: Mask


def others_in(sizes: BatchSizes, load: Load) -> Array:
    """Return how many images join the first request of a batch of each size, one a row."""
    others: Array = np.maximum(0.0, sizes.images - load.request_images)
    return others


def gathered(
    sizes: BatchSizes, shortest_s: Array, arriving: Array, block: Block, load: Load, limit_s: float
) -> Gathered:
    """Return what images meet where batches gather, at the settings of a block.

    Args:
        sizes: of the rows of tables.
        shortest_s: of batches of each size (rows) at the clocks of the block; no more than the largest take.
        arriving: images that come during a batch, of the whole table.
        block: the settings.
        load: what arrives.
        limit_s: latency beyond which an image counts as late.
    """
    others = others_in(sizes, load)[block.rows]
    images = load.own_images + _deviated(others, load.dispersion)
    own_s = shortest_s.take(sizes.between.searchsorted(images), axis=0)
    gathering_s = np.empty(own_s.shape[1:])
    gathering_s[:] = (others / load.rate_per_s)[:, None]
    wait_s = np.maximum(own_s, gathering_s)
    fed_back = _fed_back(sizes, arriving, block, load, limit_s)
    if fed_back is not None:
        _feed_back(own_s, wait_s, gathering_s, fed_back, _lasting_s(fed_back, sizes, shortest_s, load))
    return _late_and_longest(own_s, wait_s, limit_s)


def gathered_mean_s(sizes: BatchSizes, times_s: Array, caps: Rows, load: Load) -> Array:
    """Return the mean latency where batches gather, by mean batch and clock.

    The request that opens a batch waits as long as it gathers, those that join it half as long on average.
    """
    others = others_in(sizes, load)
    waited = (1.0 - 0.5 * others / sizes.images)[:, None]
    rows = sizes.images.searchsorted(load.own_images + others)
    own_s = np.minimum(times_s, times_s[caps, np.arange(caps.size)]).take(rows, axis=0, mode="clip")
    mean_s: Array = np.maximum((others / load.rate_per_s)[:, None], own_s)
    mean_s *= waited
    mean_s += own_s
    return mean_s


def _deviated(images: Array, dispersion: float) -> Array:
    """Return numbers of images so many deviations above their means, at least 1; by deviation and mean."""
    deviated: Array = np.maximum(1.0, images + _DEVIATIONS * np.sqrt(dispersion * images))
    return deviated


def _late_and_longest(own_s: Array, wait_s: Array, limit_s: float) -> Gathered:
    """Sum up over the spread; the first array is used up."""
    latency_s = np.add(own_s, wait_s, out=own_s)
    longest_s = latency_s[_LONGEST].copy()
    late = np.subtract(latency_s, limit_s, out=latency_s)
    late /= wait_s
    late.clip(0.0, 1.0, out=late)
    share: Array = _SHARES @ late.reshape(len(late), -1)
    return Gathered(share.reshape(longest_s.shape), longest_s)


class _Chances(NamedTuple):
    """Settings where batches at times last longer than the next gathers; of each one value.

    Args:
        places: of the settings in a flattened block.
        others: mean number of images that join the first request.
        spare: how many more gather than come during a mean batch.
        gain: what an image more in a batch adds to the next.
    """

    places: Rows
    others: Array
    spare: Array
    gain: Array


class _FedBack(NamedTuple):
    """How batches follow each other there.

    Args:
        places: of the settings in a flattened block.
        others: mean number of images that join the first request.
        dispersion: their variance over mean.
        alike: the correlation with the batch before.
    """

    places: Rows
    others: Array
    dispersion: Array
    alike: Array


def _fed_back(
    sizes: BatchSizes, arriving: Array, block: Block, load: Load, limit_s: float
) -> _FedBack | None:
    """Return how batches that gather follow each other where one may last longer than the next gathers.

    A batch of n is followed by the first request and Poisson(l * max(D, t(n))). As long as t(n) stays below D
    that is Poisson(l * D). Where it does not, a large batch makes the next one large, the more the nearer to
    1 is what an image more in a batch adds to the next (g = l*dt/dn).
    """
    chances = _chances(sizes, arriving, block, load, load.rate_per_s * limit_s)
    return None if chances is None else _settled(chances, load.dispersion)


def _chances(sizes: BatchSizes, arriving: Array, block: Block, load: Load, most: float) -> _Chances | None:
    """Return where that may be, and matters: where what usually comes while one gathers and runs is in time.

    That is more than gathers, so rows that gather `most` or more are not even looked at.
    """
    first, stop = block.rows.start, min(block.rows.stop, sizes.last)
    others = others_in(sizes, load)
    rows = slice(first, max(first, min(stop, int(others.searchsorted(most)))))
    others, asked = others[rows], block.asked[: rows.stop - first]
    met = arriving[rows, block.clocks]
    gains = arriving[first + 1 : rows.stop + 1, block.clocks] - met
    gains /= sizes.steps[rows]
    spares = others[:, None] - met
    near = spares < (_FAR_DEVIATIONS * np.sqrt(load.dispersion * others))[:, None] * gains
    near &= asked
    return _that_matter(near, others, spares, gains, most)


def _that_matter(near: Mask, others: Array, spares: Array, gains: Array, most: float) -> _Chances | None:
    places = near.ravel().nonzero()[0]
    spare = spares.take(places)
    mean = others.take(places // near.shape[1])
    usual = mean + mean - spare  # what comes while one gathers and runs
    matters = ((usual < most) & (usual > _HARMLESS * most)).nonzero()[0]
    if not matters.size:
        return None
    places = places.take(matters)
    gain = gains.take(places)
    np.minimum(MOST_GAIN, np.maximum(1e-6, gain, out=gain), out=gain)
    return _Chances(places, mean.take(matters), spare.take(matters), gain)


def _settled(chances: _Chances, dispersion: float) -> _FedBack:
    """Find mean and spread of batches that follow each other, step by step.

    What exceeds the delay counts as if spread evenly.
    """
    places, mean, spare, gain = chances
    spare = spare / gain
    more, kept, alike = np.zeros(mean.size), np.ones(mean.size), gain
    for _ in range(_STEPS):
        width = np.sqrt(_EVENLY * dispersion * (mean + more) / kept)
        beyond = (more - spare) / width
        beyond += 0.5
        np.maximum(0.0, beyond, out=beyond)
        longer = np.minimum(1.0, beyond)
        alike = gain * longer
        beyond -= 0.5 * longer
        beyond *= width
        beyond *= alike
        beyond -= more
        beyond /= 1.0 - alike
        more += beyond
        kept = 1.0 - carried_over(alike, longer)
    return _FedBack(places, mean + more, dispersion / kept, alike)


def _lasting_s(fed_back: _FedBack, sizes: BatchSizes, times_s: Array, load: Load) -> Array:
    """Return how long batches last that follow each other, and those before them; by spread and place."""
    images = np.empty((2, _DEVIATIONS.size, fed_back.places.size))
    np.multiply(_DEVIATIONS, np.sqrt(fed_back.dispersion * fed_back.others), out=images[0])
    np.multiply(images[0], fed_back.alike, out=images[1])
    images += fed_back.others
    np.maximum(1.0, images, out=images)
    images += load.own_images + 0.5
    np.minimum(sizes.images[-1] + 0.5, images, out=images)
    clocks = times_s.shape[1]
    at = (sizes.nearest * clocks).take(images.astype(np.intp))
    at += fed_back.places % clocks
    lasting_s: Array = times_s.take(at)
    return lasting_s


def _feed_back(own_s: Array, wait_s: Array, gathering_s: Array, fed_back: _FedBack, lasting_s: Array) -> None:
    """Put in the times of batches that follow each other, by spread and place of a block."""
    places, (own_there_s, before_s) = fed_back.places, lasting_s
    own_s.reshape(len(own_s), -1)[:, places] = own_there_s
    wait_s.reshape(len(wait_s), -1)[:, places] = np.maximum(gathering_s.take(places), before_s)


def carried_over(alike: Amount, longer: Amount) -> Amount:
    """Return the share of the batches' variance that comes from the batches before them.

    Args:
        alike: the correlation of a batch with the one before.
        longer: the share of the batches that outlast the delay.
    """
    return alike * alike * (longer * (4.0 - 3.0 * longer))
