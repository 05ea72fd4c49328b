"""How unevenly images come within the time of a batch."""

from __future__ import annotations

from collections.abc import Mapping

from optimizer.telemetry import BatchTimes

_WEIGHT = 0.2
_LEAST_BATCHES = 10
_LEAST_GATHERED = 0.25
_MOST_CUT = 0.05
_MOST = 200.0


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

    def observe(self, batches: Mapping[int, BatchTimes], batch_limit: int) -> None:
        """Learn from a window's batches; not from few, from single images, or where the limit cut them."""
        count = sum(times.count for times in batches.values())
        cut = sum(times.count for size, times in batches.items() if size >= batch_limit)
        if count < _LEAST_BATCHES or cut > _MOST_CUT * count:
            return
        mean = sum(size * times.count for size, times in batches.items()) / count
        if mean - 1.0 < _LEAST_GATHERED:
            return
        variance = sum((size - mean) ** 2 * times.count for size, times in batches.items()) / count
        sample = min(_MOST, max(1.0, variance / (mean - 1.0)))
        self._dispersion += _WEIGHT * (sample - self._dispersion)
