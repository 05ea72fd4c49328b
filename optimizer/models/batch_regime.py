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
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Amount = TypeVar("Amount", float, NDArray[np.float64])

_SPREAD = ((0.0, 0.69), (1.0, 0.24), (2.0, 0.06), (3.0, 0.01))
"""Batches of a normal spread, by deviations above the mean and share; the smaller half counts as the mean."""
_SPREAD_DEVIATIONS, _SPREAD_SHARES = (np.array(column) for column in zip(*_SPREAD, strict=True))
_SPREAD_DEVIATIONS = _SPREAD_DEVIATIONS[:, None]
_NORMAL = ((-1.0, 0.309), (0.0, 0.383), (1.0, 0.242), (2.0, 0.060), (3.0, 0.006))
_DEVIATIONS, _SHARES = (np.array(column) for column in zip(*_NORMAL, strict=True))
_DEVIATIONS = _DEVIATIONS[:, None]
_SQUARES_LESS_1 = _DEVIATIONS**2 - 1.0
_PAIRS = np.outer(_SHARES, _SHARES).ravel()
_LONGEST = 2
"""The place in the spread of the batches whose latency all but a few images keep."""
_FEW, _HALVINGS = 0.01, 8
_MOST_GAIN = 0.97
_FAR_DEVIATIONS, _STEPS, _EVENLY = 3.0, 4, math.sqrt(3.0)
"""A batch is hardly larger than that; an even spread of one deviation reaches as far as the last."""
_HARMLESS = 0.4
"""The share of the limit up to which usual latencies do not come near it, however batches follow."""
_LEAST_RATE_PER_S = 1e-3


class Load(NamedTuple):
    """Images a second to expect, and how unevenly: variance over mean of their counts (1 for Poisson).

    They come in requests of `request_images` in the mean; an image comes with `own_images`, itself included,
    which is more where requests differ, because large ones have more images. A batch that cannot take
    `largest_request` would split it.
    `dispersion` is that of counts over a batch. How much the rate itself changes from second to second says
    nothing of a queue that lasts milliseconds: for surges an alarm watches and capacity is held in reserve.
    """

    rate_per_s: float
    dispersion: float
    request_images: float = 1.0
    own_images: float = 1.0
    largest_request: float = 1.0


class Regime(NamedTuple):
    """Arrays of one row a mean batch and one column a clock, but where one value a clock is said.

    Args:
        possible: whether the mean batch can be had at the clock: no smaller than the greedy one.
        delay_s: to be allowed to a batch; 0 in the greedy row.
        busy: share of time in which a batch runs.
        late_share: share of the images whose delay or batch before, and own batch, exceed the limit.
        greedy_images: the smallest mean batch, one a clock.
        gathered_longest_s: latency that all but a few images keep where batches gather.
        at_once: what images meet where they do not.
    """

    possible: Mask
    delay_s: Array
    busy: Array
    late_share: Array
    greedy_images: Array
    gathered_longest_s: Array
    at_once: AtOnce

    def longest_s(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Array:
        """Return the latency that all but a few images keep at some mean batches and clocks."""
        gathered = rows > self.at_once.rows[columns]
        gathered_s = self.gathered_longest_s[rows, columns]
        return (
            gathered_s if gathered.all() else np.where(gathered, gathered_s, self.at_once.longest_s(columns))
        )


def regimes(
    sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load, limit_s: float, lowest: int = 0
) -> Regime:
    """Return what a load meets at every mean batch and clock.

    Args:
        sizes: batch sizes, whole numbers, ascending from 1.
        times_s: seconds of a batch of each size (rows) at each clock (columns).
        caps: for each clock the row of the largest batch that the server may form.
        load: what arrives.
        limit_s: latency beyond which an image counts as late.
        lowest: the first clock at which it matters what batches meet that gather; below, all of that is late.
    """
    load = load._replace(rate_per_s=max(_LEAST_RATE_PER_S, load.rate_per_s))
    rows, clocks = np.arange(sizes.size)[:, None], np.arange(caps.size)
    arriving = load.rate_per_s * times_s
    at_once, mean, greedy = _at_once(sizes, times_s, caps, load, arriving)
    gathering_s = _gathering_s(sizes, load)
    waits = rows > greedy
    gathers = slice(int(greedy[lowest:].min()) + 1, int(caps[lowest:].max()) + 1), slice(lowest, None)
    gathered_late, gathered_s = _delayed(
        sizes, times_s, arriving, waits[gathers], times_s[caps, clocks], gathers, load, limit_s
    )
    gathered_longest_s = np.full(times_s.shape, np.inf)
    gathered_longest_s[gathers] = gathered_s
    busy = np.divide(arriving, sizes[:, None], out=arriving)
    np.minimum(1.0, busy, out=busy)
    busy[at_once.rows, clocks] = at_once.busy
    late = np.where(waits, 1.0, busy * at_once.late_share(limit_s))
    np.copyto(late[gathers], gathered_late, where=waits[gathers])
    alone_late = at_once.alone_s > limit_s
    if alone_late.any():
        late[:, alone_late] = 1.0
    return Regime(
        possible=(rows >= greedy) & (rows <= caps),
        delay_s=np.where(waits, gathering_s, 0.0),
        busy=busy,
        late_share=late,
        greedy_images=mean,
        gathered_longest_s=gathered_longest_s,
        at_once=at_once,
    )


def mean_latency_s(sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load, delayed: Mask) -> Array:
    """Return the mean latency at every mean batch and clock.

    Args:
        sizes: as for `regimes`, like the others.
        times_s: of each size at each clock.
        caps: rows of the largest batches.
        load: what arrives.
        delayed: where batches gather; elsewhere the server takes what has come.
    """
    load = load._replace(rate_per_s=max(_LEAST_RATE_PER_S, load.rate_per_s))
    at_once, _, _ = _at_once(sizes, times_s, caps, load, load.rate_per_s * times_s)
    return np.where(delayed, _gathered_mean_s(sizes, times_s, caps, load), at_once.mean_s)


def late_share_at_once(
    sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load, limit_s: float
) -> Array:
    """Return which share of a load is late where batches do not gather, one a clock; as for `regimes`."""
    at_once, _, greedy = _at_once(sizes, times_s, caps, load, load.rate_per_s * times_s)
    late: Array = np.where(greedy <= caps, at_once.busy * at_once.late_share(limit_s), 1.0)
    return late


def _at_once(
    sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load, arriving: Array
) -> tuple[AtOnce, Array, NDArray[np.intp]]:
    """Return what images meet where batches do not gather, the mean batch there, and its row, one a clock.

    The row is the number of rows where no mean batch keeps up.
    """
    following = _followed_by(arriving, load.request_images)
    greedy = _first_sustained(sizes, following)
    usual = np.minimum(greedy, sizes.size - 1)
    met, mean = _usual_batch(sizes, arriving, following, usual)
    lasts = _Durations(sizes, times_s, np.maximum(caps, usual))
    alone_s = times_s[min(int(sizes.searchsorted(load.own_images)), sizes.size - 1)]
    return AtOnce(lasts, usual, met, load, np.minimum(1.0, met / mean), alone_s), mean, greedy


def _gathering_s(sizes: Array, load: Load) -> Array:
    """Return how long a batch of each size gathers, in one column."""
    gathering_s: Array = (np.maximum(0.0, sizes - load.request_images) / load.rate_per_s)[:, None]
    return gathering_s


def _first_sustained(sizes: Array, following: Array) -> NDArray[np.intp]:
    """Return the row of the smallest mean batch without delay, one a clock; the number of rows for none."""
    sustained = np.ones((sizes.size + 1, following.shape[1]), bool)
    np.less_equal(following, sizes[:, None], out=sustained[:-1])
    first: NDArray[np.intp] = sustained.argmax(axis=0)
    return first


def _followed_by(arriving: Array, request_images: float) -> Array:
    """Return the mean batch after one during which so many images come: these, or the next request alone."""
    following: Array = arriving / -request_images
    np.exp(following, out=following)
    following *= request_images
    following += arriving
    return following


def _usual_batch(
    sizes: Array, arriving: Array, following: Array, usual: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return what arrives during the mean batch of a server that never waits, and that batch; one a clock.

    It lies between two sizes, where both are on a straight line. Rounded up to a size, a clock would look the
    worse the farther that is, and the best clock would be where the sizes happen to fit.
    """
    clocks, below = np.arange(usual.size), np.maximum(usual - 1, 0)
    met, met_below = arriving[usual, clocks], arriving[below, clocks]
    size, size_below = sizes[usual], sizes[below]
    over = size - following[usual, clocks]
    under = size_below - following[below, clocks]
    back = over / np.maximum(1e-12, over - under)
    np.minimum(1.0, np.maximum(0.0, back, out=back), out=back)
    return met - back * (met - met_below), size - back * (size - size_below)


def _delayed(
    sizes: Array,
    times_s: Array,
    arriving: Array,
    asked: Mask,
    capped_s: Array,
    block: tuple[slice, slice],
    load: Load,
    limit_s: float,
) -> tuple[Array, Array]:
    """Return which share is late, and the longest latency, where batches gather; by mean batch and clock.

    Both are of a block of the table of settings, as is what is asked for: where it matters how batches follow
    each other.
    """
    rows, clocks = block
    gathering_s = _gathering_s(sizes, load)[rows]
    others = np.maximum(0.0, sizes[rows] - load.request_images)
    gathered = load.own_images + _deviated(others, load.dispersion, _SPREAD_DEVIATIONS)
    shortest_s = np.minimum(times_s[:, clocks], capped_s[clocks])
    nearest = (sizes[1:] + sizes[:-1]) / 2.0
    own_s = shortest_s.take(nearest.searchsorted(gathered), axis=0)
    wait_s = np.maximum(gathering_s, own_s)
    fed_back = _fed_back(sizes, arriving, asked, block, load, limit_s)
    if fed_back.places.size:
        fed_own_s, fed_before_s = _lasting(fed_back, sizes, nearest, shortest_s, load)
        own_s.reshape(len(own_s), -1)[:, fed_back.places] = fed_own_s
        fed_gathering_s = gathering_s[fed_back.places // asked.shape[1], 0]
        wait_s.reshape(len(wait_s), -1)[:, fed_back.places] = np.maximum(fed_gathering_s, fed_before_s)
    latency_s = np.add(own_s, wait_s, out=own_s)
    longest_s = latency_s[_LONGEST].copy()
    late = np.subtract(latency_s, limit_s, out=latency_s)
    late /= wait_s
    late.clip(0.0, 1.0, out=late)
    return (_SPREAD_SHARES @ late.reshape(len(late), -1)).reshape(asked.shape), longest_s


class _FedBack(NamedTuple):
    """Where batches at times last longer than the next gathers, and what then joins its first request.

    Args:
        places: of the settings in a flattened table.
        others: mean number of images that join it.
        dispersion: their variance over mean.
        alike: the correlation with the batch before.
    """

    places: NDArray[np.intp]
    others: Array
    dispersion: Array
    alike: Array


def _fed_back(
    sizes: Array, arriving: Array, asked: Mask, block: tuple[slice, slice], load: Load, limit_s: float
) -> _FedBack:
    """Return how batches that gather follow each other where one may last longer than the next gathers.

    A batch of n is followed by the first request and Poisson(l * max(D, t(n))). As long as t(n) stays below D
    that is Poisson(l * D). Where it does not, a large batch makes the next one large, the more the nearer to
    1 is what an image more in a batch adds to the next (g = l*dt/dn). Mean and spread of batches that follow
    each other like that are found step by step; what exceeds D counts as if spread evenly.
    """
    (rows, clocks), count = block, min(len(asked), sizes.size - 1 - block[0].start)
    rows, above = slice(rows.start, rows.start + count), slice(rows.start + 1, rows.start + count + 1)
    others = np.maximum(0.0, sizes[rows] - load.request_images)
    met = arriving[rows, clocks]
    gains = arriving[above, clocks] - met
    gains /= (sizes[above] - sizes[rows])[:, None]
    spares = others[:, None] - met
    near = spares < (_FAR_DEVIATIONS * np.sqrt(load.dispersion * others))[:, None] * gains
    near &= asked[:count]
    (places,) = near.ravel().nonzero()
    spare = spares.take(places)
    mean = others[places // asked.shape[1]]
    usual = mean + mean - spare  # what comes while one gathers and runs
    most = load.rate_per_s * limit_s
    nearly = (usual < most) & (usual > _HARMLESS * most)
    places, spare, mean = places[nearly], spare[nearly], mean[nearly]
    gain = gains.take(places)
    np.minimum(_MOST_GAIN, np.maximum(1e-6, gain, out=gain), out=gain)
    spare /= gain
    more, alike, kept = np.zeros(mean.size), gain, np.ones(mean.size)
    widest = 12.0 * load.dispersion
    for _ in range(_STEPS if places.size else 0):
        width = np.sqrt(widest * (mean + more) / kept)
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
        more = more + beyond
        kept = 1.0 - carried_over(alike, longer)
    return _FedBack(places, mean + more, load.dispersion / kept, alike)


def _lasting(fed_back: _FedBack, sizes: Array, nearest: Array, times_s: Array, load: Load) -> Array:
    """Return how long batches last that follow each other, and those before them; by spread and place."""
    images = np.empty((2, _SPREAD_DEVIATIONS.size, fed_back.places.size))
    np.multiply(_SPREAD_DEVIATIONS, np.sqrt(fed_back.dispersion * fed_back.others), out=images[0])
    np.multiply(images[0], fed_back.alike, out=images[1])
    images += fed_back.others
    np.maximum(1.0, images, out=images)
    images += load.own_images + 0.5
    np.minimum(sizes[-1] + 0.5, images, out=images)
    clocks = times_s.shape[1]
    starts = nearest.searchsorted(np.arange(sizes[-1] + 1.0)) * clocks
    at = starts.take(images.astype(np.intp))
    at += fed_back.places % clocks
    lasting: Array = times_s.take(at)
    return lasting


def carried_over(alike: Amount, longer: Amount) -> Amount:
    """Return the share of the batches' variance that comes from the batches before them.

    Args:
        alike: the correlation of a batch with the one before.
        longer: the share of the batches that outlast the delay.
    """
    return alike * alike * (longer * (4.0 - 3.0 * longer))


def _gathered_mean_s(sizes: Array, times_s: Array, caps: NDArray[np.intp], load: Load) -> Array:
    """Return the mean latency where batches gather, by mean batch and clock.

    The request that opens a batch waits as long as it gathers, those that join it half as long on average.
    """
    others = np.maximum(0.0, sizes - load.request_images)
    waited = (1.0 - 0.5 * others / sizes)[:, None]
    rows = sizes.searchsorted(load.own_images + others)
    own_s = np.minimum(times_s, times_s[caps, np.arange(caps.size)]).take(rows, axis=0, mode="clip")
    mean_s = np.maximum(_gathering_s(sizes, load), own_s)
    mean_s *= waited
    mean_s += own_s
    return mean_s


class _Durations:
    """How long batches of any number of images take, by straight lines between the sizes of a table.

    Args:
        sizes: whole numbers, ascending from 1.
        times_s: of each size (rows) at each clock (columns).
        largest: the row of the largest batch, one a clock; more images take no longer.
    """

    def __init__(self, sizes: Array, times_s: Array, largest: NDArray[np.intp]) -> None:
        self._clocks = np.arange(largest.size)
        self._slopes = np.empty(times_s.shape)
        self._slopes[-1] = 0.0
        np.subtract(times_s[1:], times_s[:-1], out=self._slopes[:-1])
        self._slopes[:-1] /= (sizes[1:] - sizes[:-1])[:, None]
        self._starts = self._slopes * sizes[:, None]
        np.subtract(times_s, self._starts, out=self._starts)
        self._most = sizes[largest]
        whole = np.arange(sizes[-1] + 1.0)
        self._lines = (sizes.searchsorted(whole, side="right") - 1) * largest.size

    def __call__(self, images: Array) -> Array:
        """Return the seconds of batches of at least one image; the last axis is the clocks."""
        images = np.minimum(images, self._most)
        at = self._lines.take(images.astype(np.intp))
        at += self._clocks
        lasting: Array = self._slopes.take(at)
        lasting *= images
        lasting += self._starts.take(at)
        return lasting

    def slopes(self, rows: NDArray[np.intp]) -> Array:
        """Return what one image more than in these rows adds, one a clock; nothing beyond the last row."""
        slopes: Array = self._slopes[rows, self._clocks]
        return slopes


class AtOnce:
    """What images meet that find a server busy that takes what has come while the batch before ran.

    The batch before varies, and lasts the longer for an image to come in it; what comes in it varies as well.
    Batch sizes follow each other like n' = Poisson(l*t(n)), so their variance is the mean's over 1 - g^2,
    with g = l*dt/dn what one more image in a batch adds to the next.

    Args:
        lasts: how long batches take.
        rows: that of the mean batch, one a clock.
        met: images that come during a mean batch.
        load: what arrives.
        busy: the share of the images that find the server busy, one a clock.
        alone_s: what a batch takes of those that find it idle.
    """

    def __init__(
        self,
        lasts: _Durations,
        rows: NDArray[np.intp],
        met: Array,
        load: Load,
        busy: Array,
        alone_s: Array,
    ) -> None:
        self.rows, self.busy, self.alone_s = rows, busy, alone_s
        rate = load.rate_per_s
        gain = rate * lasts.slopes(rows)
        np.minimum(_MOST_GAIN, np.maximum(0.0, gain, out=gain), out=gain)
        before = _skewed(met, load.dispersion / (1.0 - gain**2))
        before_s = lasts(np.maximum(load.request_images, before, out=before))
        self._wait_s = before_s.repeat(_DEVIATIONS.size, axis=0)
        came = _skewed(rate * before_s[:, None], load.dispersion)
        came += load.own_images - 1.0
        self._own_s = lasts(came.reshape(self._wait_s.shape))
        self._latency_s = self._wait_s + self._own_s
        self._all_s = _PAIRS @ self._wait_s

    def late_share(self, limit_s: Array | float) -> Array:
        """Return the share of these images whose latency exceeds a limit, one a clock."""
        return _late_share(self._latency_s, self._wait_s, self._all_s, limit_s)

    def longest_s(self, columns: NDArray[np.intp]) -> Array:
        """Return the latency that all but a few keep at some clocks: the interval where it lies is halved."""
        latency_s, wait_s, all_s = self._latency_s[:, columns], self._wait_s[:, columns], self._all_s[columns]
        longest_s: Array = self._own_s[:, columns].min(axis=0)
        step_s = latency_s.max(axis=0) - longest_s
        for _ in range(_HALVINGS):
            step_s *= 0.5
            longest_s += step_s * (_late_share(latency_s, wait_s, all_s, longest_s + step_s) > _FEW)
        longest_s += step_s
        return longest_s

    @property
    def mean_s(self) -> Array:
        """The mean latency of all images, those that find the server idle included."""
        met_s = _PAIRS @ (self._wait_s * (self._own_s + 0.5 * self._wait_s)) / self._all_s
        mean_s: Array = self.busy * met_s + (1.0 - self.busy) * self.alone_s
        return mean_s


def _late_share(latency_s: Array, wait_s: Array, all_s: Array, limit_s: Array | float) -> Array:
    """Return the share of images whose latency exceeds a limit; the limit may differ by clock."""
    late_s = latency_s - limit_s
    np.maximum(late_s, 0.0, out=late_s)
    np.minimum(late_s, wait_s, out=late_s)
    share: Array = _PAIRS @ late_s
    share /= all_s
    return share


def _deviated(images: Array, dispersion: Array | float, deviation: Array | float) -> Array:
    """Return a number of images so many deviations above its mean, at least 1; arrays broadcast."""
    deviated: Array = np.maximum(1.0, images + deviation * np.sqrt(dispersion * images))
    return deviated


def _skewed(images: Array, dispersion: Array | float) -> Array:
    """Return the same, for all `_DEVIATIONS`, of counts of images that come by chance, which are skewed.

    The first term of Cornish and Fisher for a Poisson number of clumps: (z^2 - 1) / 6 of a clump.
    """
    skewed: Array = _DEVIATIONS * np.sqrt(dispersion * images)
    skewed += images
    skewed += dispersion * _SQUARES_LESS_1 / 6.0
    return np.maximum(1.0, skewed, out=skewed)


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
    fits[0] = True
    last: NDArray[np.intp] = fits.shape[0] - 1 - fits[::-1].argmax(axis=0)
    return last


def deviations(images: float, dispersion: float, count: float) -> float:
    """Return `count` standard deviations above a mean number of images."""
    return images + count * math.sqrt(max(1.0, dispersion) * max(1.0, images))
