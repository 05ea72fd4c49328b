"""How many images arrive a second, and how unevenly."""

from __future__ import annotations

import math

_WEIGHT, _LEAST_WEIGHT = 0.3, 0.08
_DRIFT_WEIGHT, _DRIFT = 0.3, 1.0
_NO_CHANCE = 3.0
"""Deviations that one window in a thousand shows by chance."""
_STEADY = 0.1
"""Counts of two windows that differ by more than this share and chance are taken for two rates."""
_DISPERSION_WEIGHT = 0.1
_MOST_DISPERSION = 50.0
_LARGEST_RISE = 4.0
_PEAK_MEMORY = 0.98
_MARGIN_SHARE = 0.1
_MARGIN_DEVIATIONS = 2.0


class ArrivalModel:
    """Mean rate and index of dispersion (variance over mean of counts; 1 for Poisson) from window to window.

    The rate averages what looks like chance, over the longer the longer nothing else was seen, and follows at
    once a rise that does not: too high a guess costs energy, too low a guess answers.
    """

    def __init__(self) -> None:
        self._rate_per_s = 0.0
        self._peak_per_s = 0.0
        self._duration_s = 1.0
        self._last: tuple[int, float] | None = None
        self._dispersion = 1.0
        self._weight = _WEIGHT
        self._drift = 0.0
        self._steady = False

    @property
    def rate_per_s(self) -> float:
        """Images a second to expect."""
        return self._rate_per_s

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
        return self._rate_per_s + max(_MARGIN_SHARE * self._rate_per_s, _MARGIN_DEVIATIONS * self._deviation)

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
        self._steady = False
        if self._last is not None:
            self._observe_dispersion(images, duration_s, *self._last)
        self._last = images, duration_s

    def _observe_drift(self, deviations: float) -> None:
        """Average over more windows as long as they differ by chance; over few when they drift away."""
        if abs(deviations) > _NO_CHANCE:
            self._drift, self._weight = 0.0, _WEIGHT
            return
        self._drift += _DRIFT_WEIGHT * (deviations - self._drift)
        if abs(self._drift) > _DRIFT:
            self._drift, self._weight = 0.0, _WEIGHT
        self._weight = max(_LEAST_WEIGHT, self._weight / (1.0 + self._weight))

    def _observe_dispersion(self, images: int, duration_s: float, before: int, before_s: float) -> None:
        """Two neighbouring counts estimate it: half their squared difference over their mean."""
        before_scaled = before * duration_s / before_s
        mean = (images + before_scaled) / 2.0
        if mean <= 0.0:
            return
        change = abs(images - before_scaled)
        self._steady = change <= _STEADY * mean + _NO_CHANCE * math.sqrt(2.0 * mean)
        most = min(_MOST_DISPERSION, _LARGEST_RISE * self._dispersion)  # one jump is a change, no burstiness
        sample = min(most, (images - before_scaled) ** 2 / 2.0 / mean)
        self._dispersion = max(1.0, self._dispersion + _DISPERSION_WEIGHT * (sample - self._dispersion))
