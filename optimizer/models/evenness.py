"""How much more evenly than by chance requests come, seen from how few of them find the server busy."""

from __future__ import annotations

import math

from optimizer.models.load import squared_variation
from optimizer.telemetry import Traffic, that_ran

_MEMORY = 0.98
_NOTICED = 0.15
"""A request waited that took longer than alone by this share."""
_DEVIATIONS, _UNSEEN = 2.0, 3.0
"""Above what was seen; and what may be where nothing was, but for one chance in twenty."""
_CHANGE = 8.0
"""So many more than usual that waited are other traffic, not chance."""
_MOST, _LONGEST = 20.0, 0.9
_SEEN_BY_P99 = 100
"""Of fewer requests, a single one that waited raises p99."""


class EvennessModel:
    """The shape k of the gaps between requests, a Weibull distribution: 1 by chance, more for evener ones.

    By chance (Poisson) a request finds the server busy as often as it is busy, in 1 - exp(-x) of all cases
    where x requests come in the time of a batch; in general in 1 - exp(-x^k). So how few waited tells k, for
    gaps of the length that matters: cameras that do not know of each other are even over a second, and come
    by chance within milliseconds. It is the least k that what was seen allows: without much evidence 1.
    """

    def __init__(self) -> None:
        self._shape = 1.0
        self._forget()

    @property
    def shape(self) -> float:
        """The shape of the gaps, at least 1."""
        return self._shape

    @property
    def dispersion(self) -> float:
        """Variance over mean of the number of requests, at most 1: the squared variation of the gaps."""
        return squared_variation(self._shape)

    def _forget(self) -> None:
        self._expected = self._waited = self._together = 0.0

    def observe(self, traffic: Traffic, duration_s: float, delay_s: float) -> None:
        """Learn from a window at one setting; nothing where batches wait to gather images.

        Args:
            traffic: of the window.
            duration_s: its length.
            delay_s: how long batches waited.
        """
        ran = that_ran(traffic.batches)
        if delay_s > 0.0 or not traffic.requests or not ran or duration_s <= 0.0:
            return
        alone = ran[min(ran)]
        busy_s, batches = sum([t.total_s for t in ran.values()]), sum([t.count for t in ran.values()])
        together = traffic.requests * busy_s / batches / duration_s
        expected = (1.0 - _NOTICED) * traffic.requests * -math.expm1(-together)
        waited = min(expected, _most_that_waited(traffic, alone.total_s / alone.count))
        if waited > _CHANGE + expected * self._most_share:
            self._forget()
        self._expected = _MEMORY * self._expected + expected
        self._waited = _MEMORY * self._waited + waited
        self._together = _MEMORY * self._together + expected * together
        self._shape = _shape(self._together / self._expected, self._most_share)

    @property
    def _most_share(self) -> float:
        """How many waited at most, over those expected by chance."""
        most = self._waited + _DEVIATIONS * math.sqrt(self._waited) + _UNSEEN
        return min(1.0, most / self._expected) if self._expected > 0.0 else 1.0


def _most_that_waited(traffic: Traffic, alone_s: float) -> float:
    """Return how many requests at most took longer than one that comes alone, as far as quantiles show."""
    longest_ms, requests = 1e3 * (1.0 + _NOTICED) * alone_s, traffic.requests
    if traffic.latency_p99_ms is not None and traffic.latency_p99_ms <= longest_ms:
        return 0.5 * (requests // _SEEN_BY_P99)
    if traffic.latency_p95_ms is not None and traffic.latency_p95_ms <= longest_ms:
        return max(1.0, 0.05 * requests)
    if traffic.latency_p50_ms is not None and traffic.latency_p50_ms <= longest_ms:
        return 0.5 * requests
    return requests


def _shape(together: float, share: float) -> float:
    """Return the k by which the share of those expected by chance waits where so many come in a batch."""
    if share >= 1.0 or not 0.0 < together < _LONGEST:
        return 1.0
    waits = share * -math.expm1(-together)
    return min(_MOST, max(1.0, math.log(-math.log1p(-waits)) / math.log(together)))
