"""Prediction of how long a batch takes, from the batches that ran."""

from __future__ import annotations

import math
from bisect import bisect_left, insort

_WEIGHT = 0.25
_FAR_TOO_HIGH = 2.0
_DOUBT = 0.8
_SHORTEST_GROWTH = 1.02


class ServiceTimes:
    """An exponential average of seconds for each executed batch size, interpolated linearly between sizes.

    Below the smallest known size the prediction is proportional to the images (optimistic on purpose: a wrong
    refusal loses an answer, a wrong acceptance only comes late). Above the largest it follows the slope of
    the two largest, or is proportional when only one size is known. 0 as long as nothing ran.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._means_s: dict[int, float] = {}
        self._shortest_s: dict[int, float] = {}
        self._trust = 1.0

    def observe(self, images: int, seconds: float) -> None:
        """Learn from one batch. An average more than twice too high (a warm-up) is forgotten at once."""
        self._trust = 1.0
        mean_s = self._means_s.get(images)
        if mean_s is None:
            insort(self._sizes, images)
        if mean_s is None or mean_s > _FAR_TOO_HIGH * seconds:
            mean_s = seconds
        self._means_s[images] = mean_s + _WEIGHT * (seconds - mean_s)
        shortest_s = self._shortest_s.get(images, seconds)
        self._shortest_s[images] = min(seconds, shortest_s * _SHORTEST_GROWTH)

    def shortest(self, images: int) -> float:
        """Return the seconds of a batch of `images` when nothing interferes; infinite when none ran.

        The average of batches that ran in a thread includes their waits for the interpreter lock; the
        shortest does not. It grows a little with every batch that does not reach it, to follow a change.
        """
        return self._shortest_s.get(images, math.inf)

    def doubt(self) -> None:
        """Trust the averages less, until the next batch ran.

        Called when an idle engine refuses work because of them: with nothing running, a wrong average would
        otherwise never be corrected, and everything refused for ever.
        """
        self._trust *= _DOUBT

    def predict(self, images: int) -> float:
        """Return the expected seconds of a batch of `images`."""
        return self._trust * self._interpolated_s(images)

    def _interpolated_s(self, images: int) -> float:
        sizes, means_s = self._sizes, self._means_s
        if images in means_s:
            return means_s[images]
        if not sizes:
            return 0.0
        index = min(bisect_left(sizes, images), len(sizes) - 1)
        if index == 0:
            return means_s[sizes[0]] * images / sizes[0]
        low, high = sizes[index - 1], sizes[index]
        slope_s = max(0.0, (means_s[high] - means_s[low]) / (high - low))
        anchor = high if images > high else low
        return means_s[anchor] + slope_s * (images - anchor)
