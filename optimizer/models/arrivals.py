"""How many images arrive a second, and how unevenly."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

_WEIGHT, _LEAST_WEIGHT = 0.3, 0.08
_DRIFT_WEIGHT, _DRIFT = 0.3, 1.0
_NO_CHANCE = 3.0
"""Deviations that one window in a thousand shows by chance."""
_STEADY = 0.1
"""Counts of two windows that differ by more than this share and chance are taken for two rates."""
_RISES = 3
"""So many in a row are a ramp; a step that falls into the middle of a window looks like two."""
_CHANCE_IN_RISES = 0.5
"""In deviations: what chance leaves of the least of them."""
_DISPERSION_WEIGHT = 0.1
_MOST_DISPERSION = 50.0
_LARGEST_RISE = 4.0
_PEAK_MEMORY = 0.98
_MARGIN_SHARE = 0.1
_MARGIN_DEVIATIONS = 2.0


class ArrivalModel:
    """Mean rate and index of dispersion (variance over mean of counts; 1 for Poisson) from window to window.

    The rate averages what looks like chance, over the longer the longer nothing else was seen, and follows at
    once a rise that does not: too high a guess costs energy, too low a guess answers. What rose in three
    windows in a row is expected to rise on.
    """

    def __init__(self) -> None:
        self._rate_per_s = self._expected_per_s = 0.0
        self._peak_per_s = 0.0
        self._duration_s = 1.0
        self._seen_per_s: deque[float] = deque(maxlen=_RISES + 1)
        self._dispersion = 1.0
        self._weight = _WEIGHT
        self._drift = 0.0
        self._steady = False

    @property
    def rate_per_s(self) -> float:
        """Images a second that come now."""
        return self._rate_per_s

    @property
    def expected_per_s(self) -> float:
        """Images a second to expect in the next window: more than now while they rise."""
        return self._expected_per_s

    @property
    def peak_rate_per_s(self) -> float:
        """The highest rate of a minute or so ago, fading: what may come back after a pause."""
        return self._peak_per_s

    @property
    def dispersion(self) -> float:
        """Variance over mean of the number of images in an interval, at least 1."""
        return self._dispersion

    @property
    def steady(self) -> bool:
        """Whether about as many images came in the last window as in the one before."""
        return self._steady

    @property
    def cautious_rate_per_s(self) -> float:
        """A rate that the next window hardly exceeds."""
        margin_per_s = max(_MARGIN_SHARE * self._expected_per_s, _MARGIN_DEVIATIONS * self._deviation)
        return self._expected_per_s + margin_per_s

    @property
    def _deviation(self) -> float:
        """The standard deviation of the rate seen in one window."""
        return math.sqrt(self._dispersion * self._rate_per_s / self._duration_s)

    def observe(self, images: int, duration_s: float) -> None:
        """Learn from the number of images that arrived in an interval; ignores an empty interval."""
        if duration_s <= 0.0:
            return
        rate = images / duration_s
        self._peak_per_s = max(rate, _PEAK_MEMORY * self._peak_per_s)
        self._duration_s = duration_s
        rise = rate - self._rate_per_s
        chance = self._deviation
        self._observe_drift(rise / chance if chance > 0.0 else math.inf)
        self._rate_per_s += rise if rise > _NO_CHANCE * chance else self._weight * rise
        self._seen_per_s.append(rate)
        self._observe_dispersion()
        self._expected_per_s = max(self._rate_per_s, self._rising_to_per_s())

    def _rising_to_per_s(self) -> float:
        """Return the next rate if it rises on as it did; 0 if it does not rise."""
        if len(self._seen_per_s) <= _RISES:
            return 0.0
        least = min(after - before for before, after in pairwise(self._seen_per_s))
        rise = least - _CHANCE_IN_RISES * self._deviation
        return self._seen_per_s[-1] + rise if rise > 0.0 else 0.0

    def _observe_drift(self, deviations: float) -> None:
        """Average over more windows as long as they differ by chance; over few when they drift away."""
        if abs(deviations) > _NO_CHANCE:
            self._drift, self._weight = 0.0, _WEIGHT
            return
        self._drift += _DRIFT_WEIGHT * (deviations - self._drift)
        if abs(self._drift) > _DRIFT:
            self._drift, self._weight = 0.0, _WEIGHT
        self._weight = max(_LEAST_WEIGHT, self._weight / (1.0 + self._weight))

    def _observe_dispersion(self) -> None:
        """Neighbouring counts estimate it: a sixth of the squared bend of three, over their mean.

        Of two only, half the squared difference. Where a rate rises evenly, counts differ but do not bend: a
        ramp is no burstiness.
        """
        counts = [rate_per_s * self._duration_s for rate_per_s in self._seen_per_s][-3:]
        self._steady = False
        if len(counts) < 2 or counts[-1] + counts[-2] <= 0.0:
            return
        mean, change = (counts[-1] + counts[-2]) / 2.0, counts[-1] - counts[-2]
        self._steady = abs(change) <= _STEADY * mean + _NO_CHANCE * math.sqrt(2.0 * mean)
        sample = change**2 / 2.0 / mean
        if len(counts) > 2:
            sample = (change - (counts[-2] - counts[-3])) ** 2 / 2.0 / sum(counts)
        most = min(_MOST_DISPERSION, _LARGEST_RISE * self._dispersion)  # one jump is a change, no burstiness
        self._dispersion += _DISPERSION_WEIGHT * (min(most, sample) - self._dispersion)
        self._dispersion = max(1.0, self._dispersion)
