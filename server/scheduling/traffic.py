"""What the scheduler tells the governor: counters and latencies since they were last collected."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from optimizer.telemetry import LATEST_BATCHES, BatchTimes, Traffic, sum_up

LATENCIES_KEPT = 1 << 15
"""Answered requests whose latency is kept between two collections; beyond, the oldest are dropped.

Nobody collects where nothing is governed, so it is also what such a model keeps for ever: 1.5 MiB.
"""


class TrafficRecorder:
    """Counts images and keeps latencies, with constant work per request and bounded memory."""

    def __init__(self, latencies_kept: int = LATENCIES_KEPT) -> None:
        self._latencies_s: deque[float] = deque(maxlen=latencies_kept)
        self._weights: deque[int] = deque(maxlen=latencies_kept)
        self._latest: deque[tuple[int, float]] = deque(maxlen=LATEST_BATCHES)
        self._reset()

    def _reset(self) -> None:
        self.requests = self.together = self.largest_request = 0
        self.arrived = self.completed = self.refused = self.expired = self.cancelled = self.failed = 0
        self._batches: dict[int, tuple[int, float]] = {}
        self._latencies_s.clear()
        self._weights.clear()

    def came(self, images: int) -> None:
        """Count a request that came, whatever becomes of it."""
        self.arrived += images
        self.requests += 1
        self.together += images * images
        self.largest_request = max(self.largest_request, images)

    def answered(self, images: int, latency_s: float) -> None:
        """Count a request that got its answer."""
        self.completed += images
        self._latencies_s.append(latency_s)
        self._weights.append(images)

    def executed(self, images: int, engine_s: float) -> None:
        """Count a batch that ran."""
        count, total_s = self._batches.get(images, (0, 0.0))
        self._batches[images] = (count + 1, total_s + engine_s)
        self._latest.append((images, engine_s))

    def latest(self) -> dict[int, BatchTimes]:
        """Return the last few batches that ran, by size; taking traffic does not forget them."""
        return sum_up(self._latest)

    def take(self, slo_ms: float, queued: int) -> Traffic:
        """Return what happened since the previous call and start anew.

        A quantile is the latency that so many of the answered images had at most. Everything is exact as long
        as no more than `latencies_kept` requests were answered; beyond, `late` is scaled up from those kept.
        """
        latencies_ms = np.array(self._latencies_s, dtype=np.float64) * 1e3
        weights = np.array(self._weights, dtype=np.int64)
        quantiles = _quantiles(latencies_ms, weights)
        traffic = Traffic(
            arrived=self.arrived,
            completed=self.completed,
            late=_scaled(weights[latencies_ms > slo_ms].sum(), weights.sum(), self.completed),
            refused=self.refused,
            expired=self.expired,
            cancelled=self.cancelled,
            failed=self.failed,
            queued=queued,
            latency_p50_ms=quantiles[0],
            latency_p95_ms=quantiles[1],
            latency_p99_ms=quantiles[2],
            batches={size: BatchTimes(*times) for size, times in self._batches.items()},
            requests=self.requests,
            together=self.together,
            largest_request=self.largest_request,
        )
        self._reset()
        return traffic


def _quantiles(
    values: NDArray[np.float64], weights: NDArray[np.int64]
) -> tuple[float, float, float] | tuple[None, None, None]:
    if not values.size:
        return None, None, None
    p50, p95, p99 = np.quantile(values, (0.50, 0.95, 0.99), weights=weights, method="inverted_cdf")
    return float(p50), float(p95), float(p99)


def _scaled(part: int, kept: int, whole: int) -> int:
    return round(int(part) * whole / int(kept)) if kept else 0
