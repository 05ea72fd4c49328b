"""How unevenly images come within the time of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import mul

from optimizer.models.gathering import carried_over
from optimizer.telemetry import BatchTimes, Traffic

_WEIGHT = 0.2
_LEAST_BATCHES = 10
_LEAST_GATHERED = 0.25
_MOST_CUT = 0.05
_MOST = 200.0
_LARGEST_RISE = 4.0
_MOST_GAIN = 0.9
_ROUNDS = 4
_REQUEST_MEMORY, _LARGEST_MEMORY = 0.8, 0.98


class RequestModel:
    """How many images come in one request, over the requests of late."""

    def __init__(self) -> None:
        self._requests = self._images = self._together = self._largest = 0.0

    @property
    def images(self) -> float:
        """Images of a request, the mean."""
        return max(1.0, self._images / self._requests) if self._requests else 1.0

    @property
    def own_images(self) -> float:
        """Images of the request that an image comes in, the mean over images; no less than `images`."""
        return max(self.images, self._together / self._images) if self._images else 1.0

    def dispersion(self, of_requests: float) -> float:
        """Return variance over mean of the number of images, given that of the number of requests."""
        return self.own_images - (1.0 - of_requests) * self.images

    @property
    def largest(self) -> float:
        """Images of the largest request of late."""
        return max(1.0, self._largest)

    def observe(self, traffic: Traffic) -> None:
        """Count a window's requests, where somebody counted them."""
        if traffic.requests:
            self._largest = max(_LARGEST_MEMORY * self._largest, traffic.largest_request)
            self._requests = _REQUEST_MEMORY * self._requests + traffic.requests
            self._images = _REQUEST_MEMORY * self._images + traffic.arrived
            self._together = _REQUEST_MEMORY * self._together + traffic.together


class ClumpModel:
    """Variance over mean of what batches gathered behind their first image; 1 for images that come alone.

    The counts of whole windows tell of surges and lulls; within milliseconds images may come evenly all the
    same. Batches count just there: requests of eight images show, surges of seconds do not.
    """

    def __init__(self) -> None:
        self._dispersion = 1.0

    @property
    def dispersion(self) -> float:
        """Variance over mean, at least 1."""
        return self._dispersion

    def observe(
        self, batches: Mapping[int, BatchTimes], batch_limit: int, rate_per_s: float, delay_s: float
    ) -> None:
        """Learn from a window's batches; not from few, from single images, or where the limit cut them.

        Args:
            batches: by size.
            batch_limit: in images.
            rate_per_s: images that came a second.
            delay_s: how long batches waited to gather images. One that took longer, or any without a delay,
                made the next take what came meanwhile, and so long ones long: that alone spreads their sizes.
        """
        counts = [times.count for times in batches.values()]
        count = sum(counts)
        cut = sum([times.count for size, times in batches.items() if size >= batch_limit])
        if count < _LEAST_BATCHES or cut > _MOST_CUT * count:
            return
        mean = sum(map(mul, batches, counts)) / count
        if mean - 1.0 < _LEAST_GATHERED:
            return
        variance = sum(map(mul, [(size - mean) ** 2 for size in batches], counts)) / count
        alone = _spread_of_single_images(batches, mean, variance, rate_per_s, delay_s)
        most = min(_MOST, _LARGEST_RISE * self._dispersion)  # one jump is a change of the rate, no burstiness
        sample = min(most, max(1.0, variance / alone))
        self._dispersion += _WEIGHT * (sample - self._dispersion)


def _spread_of_single_images(
    batches: Mapping[int, BatchTimes], mean: float, variance: float, rate_per_s: float, delay_s: float
) -> float:
    """Return the variance that images coming alone would give the batches.

    n' = Poisson(l*max(D, t(n))) has the variance of what comes, over 1 - g^2 with g = l*dt/dn where all t(n)
    exceed the delay D, and less the fewer do: see `gathering`.
    """
    ran = [(size, times.count, times.total_s) for size, times in batches.items() if times.count]
    count = sum([count for _, count, _ in ran])
    mean_s = sum([total_s for _, _, total_s in ran]) / count
    covariance = sum([(size - mean) * (total_s - count * mean_s) for size, count, total_s in ran])
    slope_s = covariance / (variance * count) if variance > 0.0 else 0.0
    gain = min(_MOST_GAIN, max(0.0, rate_per_s * slope_s))
    longer = sum([count for _, count, total_s in ran if total_s > delay_s * count]) / count
    met = mean
    for _ in range(_ROUNDS):
        met = mean - math.exp(-met)
    alone = met if delay_s <= 0.0 else mean - 1.0
    return alone / (1.0 - carried_over(gain * longer, longer))
