"""What images meet where a server takes at once what has come while the batch before ran.

Then batches of a mean size m follow each other: m = l*t(m) + exp(-l*t(m)), with l images a second. So a clock
has a smallest mean batch, the greedy one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.models.batch_sizes import BatchSizes, Rows
from optimizer.models.load import Load, squared_variation

Array = NDArray[np.float64]

_NORMAL = ((-1.0, 0.309), (0.0, 0.383), (1.0, 0.242), (2.0, 0.060), (3.0, 0.006))
"""A normal spread by deviations above the mean and share."""
_DEVIATIONS, _SHARES = (np.array(column) for column in zip(*_NORMAL, strict=True))
_DEVIATIONS = _DEVIATIONS[:, None]
_SQUARES_LESS_1 = _DEVIATIONS**2 - 1.0
_PAIRS = np.outer(_SHARES, _SHARES).ravel()
_FEW, _HALVINGS = 0.01, 8
MOST_GAIN = 0.97
"""Of what an image more in a batch adds to the next; with 1, batches would grow for ever."""


class AtOnce:
    """What images meet that find a server busy that takes what has come while the batch before ran.

    The batch before varies, and lasts the longer for an image to come in it; what comes in it varies as well.
    Batch sizes follow each other like n' = Poisson(l*t(n)), so their variance is the mean's over 1 - g^2,
    with g = l*dt/dn what one more image in a batch adds to the next.

    Args:
        sizes: of the rows of tables.
        times_s: seconds of a batch of each size (rows) at each clock (columns).
        caps: for each clock the row of the largest batch that the server may form.
        load: what arrives.
        arriving: images that come during these batches.

    Attributes, one value a clock:
        greedy: the row of the smallest mean batch that is sustained; the number of rows for none.
        rows: the same, but the last row for none.
        places: of these in a flattened table.
        mean: that batch, between two rows.
        busy: the share of the images that find the server busy.
        alone_s: what a batch takes of those that find it idle.
    """

    def __init__(self, sizes: BatchSizes, times_s: Array, caps: Rows, load: Load, arriving: Array) -> None:
        following = _followed_by(arriving, load)
        self.greedy = _first_sustained(sizes, following)
        self.rows: Rows = np.minimum(self.greedy, sizes.last)
        clocks = np.arange(caps.size)
        self.places: Rows = self.rows * caps.size + clocks
        met, self.mean = _usual_batch(sizes, arriving, following, self.rows, self.places)
        self.busy: Array = np.minimum(1.0, met / self.mean)
        self._find_busy = _find_busy(met / load.request_images, load.shape)
        self.alone_s: Array = times_s[sizes.row_for(load.own_images)]
        lasts = _Durations(sizes, times_s, np.maximum(caps, self.rows), clocks)
        self._wait_s, self._own_s = _met_s(lasts, self.places, met, load)
        self._latency_s = self._wait_s + self._own_s
        self._all_s = _PAIRS @ self._wait_s

    def late_share(self, limit_s: Array | float) -> Array:
        """Return the share of these images whose latency exceeds a limit, one a clock.

        Over those that find the server busy by chance; where requests come evenly, fewer do.
        """
        return self._find_busy * _late_share(self._latency_s, self._wait_s, self._all_s, limit_s)

    def longest_s(self, columns: Rows) -> Array:
        """Return the latency that all but a few keep at some clocks: the interval where it lies is halved."""
        latency_s, wait_s, all_s = self._latency_s[:, columns], self._wait_s[:, columns], self._all_s[columns]
        longest_s: Array = self._own_s[:, columns].min(axis=0)
        step_s = latency_s.max(axis=0) - longest_s
        few = _FEW / self._find_busy[columns]
        for _ in range(_HALVINGS):
            step_s *= 0.5
            longest_s += step_s * (_late_share(latency_s, wait_s, all_s, longest_s + step_s) > few)
        longest_s += step_s
        return longest_s

    @property
    def mean_s(self) -> Array:
        """The mean latency of all images, those that find the server idle included."""
        met_s = _PAIRS @ (self._wait_s * (self._own_s + 0.5 * self._wait_s)) / self._all_s
        busy = self.busy * self._find_busy
        mean_s: Array = busy * met_s + (1.0 - busy) * self.alone_s
        return mean_s


def late_share_at_once(sizes: BatchSizes, times_s: Array, caps: Rows, load: Load, limit_s: float) -> Array:
    """Return which share of a load is late where batches do not gather, one a clock; as for `regimes`."""
    at_once = AtOnce(sizes, times_s, caps, load, load.rate_per_s * times_s)
    late: Array = np.where(at_once.greedy <= caps, at_once.busy * at_once.late_share(limit_s), 1.0)
    return late


def _followed_by(arriving: Array, load: Load) -> Array:
    """Return the mean batch after one during which so many images come: these, or the next request alone.

    That none comes is as likely as exp(-x) by chance, and as 1 - x for a clock's tick; between, by how much
    gaps vary.
    """
    following: Array = arriving / -load.request_images
    if load.shape <= 1.0:
        np.exp(following, out=following)
    else:
        by_chance = squared_variation(load.shape)
        ticking = np.maximum(0.0, 1.0 + following)
        following = by_chance * np.exp(following) + (1.0 - by_chance) * ticking
    following *= load.request_images
    following += arriving
    return following


def _first_sustained(sizes: BatchSizes, following: Array) -> Rows:
    """Return the row of the smallest mean batch without delay, one a clock; the number of rows for none."""
    sustained = np.empty((sizes.last + 2, following.shape[1]), bool)
    np.less_equal(following, sizes.column, out=sustained[:-1])
    sustained[-1] = True
    first: Rows = sustained.argmax(axis=0)
    return first


def _usual_batch(
    sizes: BatchSizes, arriving: Array, following: Array, rows: Rows, places: Rows
) -> tuple[Array, Array]:
    """Return what arrives during the mean batch of a server that never waits, and that batch; one a clock.

    It lies between two sizes, where both are on a straight line. Rounded up to a size, a clock would look the
    worse the farther that is, and the best clock would be where the sizes happen to fit.
    """
    below = np.maximum(rows - 1, 0)
    beneath = places - (rows - below) * rows.size
    met, size = arriving.take(places), sizes.images.take(rows)
    met_below, size_below = arriving.take(beneath), sizes.images.take(below)
    over = size - following.take(places)
    under = size_below - following.take(beneath)
    back = over / np.maximum(1e-12, over - under)
    np.minimum(1.0, np.maximum(0.0, back, out=back), out=back)
    return met - back * (met - met_below), size - back * (size - size_below)


class _Durations:
    """How long batches of any number of images take, by straight lines between the sizes of a table.

    Args:
        sizes: of the rows.
        times_s: of each size at each clock.
        largest: the row of the largest batch, one a clock; more images take no longer.
        clocks: the number of each column.
    """

    def __init__(self, sizes: BatchSizes, times_s: Array, largest: Rows, clocks: Rows) -> None:
        self._slopes = np.empty(times_s.shape)
        self._slopes[-1] = 0.0
        slopes = np.subtract(times_s[1:], times_s[:-1], out=self._slopes[:-1])
        slopes /= sizes.steps
        self._starts = self._slopes * sizes.column
        np.subtract(times_s, self._starts, out=self._starts)
        self._most, self._clocks = sizes.images.take(largest), clocks
        self._lines = sizes.below * clocks.size

    def __call__(self, images: Array) -> Array:
        """Return the seconds of batches of at least one image; the last axis is the clocks."""
        images = np.minimum(images, self._most)
        at = self._lines.take(images.astype(np.intp))
        at += self._clocks
        lasting: Array = self._slopes.take(at)
        lasting *= images
        lasting += self._starts.take(at)
        return lasting

    def slopes(self, places: Rows) -> Array:
        """Return what one image more adds at these places; nothing beyond the last row."""
        slopes: Array = self._slopes.take(places)
        return slopes


def _met_s(lasts: _Durations, places: Rows, met: Array, load: Load) -> tuple[Array, Array]:
    """Return how long the batch before lasts, and the own one, by pairs of deviations and clock."""
    rate = load.rate_per_s
    gain = rate * lasts.slopes(places)
    np.minimum(MOST_GAIN, np.maximum(0.0, gain, out=gain), out=gain)
    before = _skewed(met, load.dispersion / (1.0 - gain * gain))
    before_s = lasts(np.maximum(load.request_images, before, out=before))
    came = _skewed(rate * before_s[:, None], load.dispersion)
    came += load.own_images - 1.0
    wait_s = before_s.repeat(_DEVIATIONS.size, axis=0)
    return wait_s, lasts(came.reshape(wait_s.shape))


def _find_busy(met: Array, shape: float) -> Array:
    """Return how many requests find the server busy, over those that do by chance; `met` come in a batch."""
    if shape <= 1.0:
        return np.ones(met.shape)
    share: Array = np.expm1(-(met**shape)) / np.expm1(-met)
    return np.minimum(1.0, share, out=share)


def _skewed(images: Array, dispersion: Array | float) -> Array:
    """Return so many images, for all `_DEVIATIONS`, of counts that come by chance, which are skewed.

    At least one. The first term of Cornish and Fisher for a Poisson number of clumps: (z^2 - 1) / 6 of a
    clump.
    """
    skewed: Array = _DEVIATIONS * np.sqrt(dispersion * images)
    skewed += images
    skewed += dispersion * _SQUARES_LESS_1 / 6.0
    return np.maximum(1.0, skewed, out=skewed)


def _late_share(latency_s: Array, wait_s: Array, all_s: Array, limit_s: Array | float) -> Array:
    """Return the share of images whose latency exceeds a limit; the limit may differ by clock."""
    late_s = latency_s - limit_s
    np.maximum(late_s, 0.0, out=late_s)
    np.minimum(late_s, wait_s, out=late_s)
    share: Array = _PAIRS @ late_s
    share /= all_s
    return share
