"""What a batching server does under a load: how busy it is, how late its answers come.

The server takes whatever waits, up to its batch limit, whenever it is free (no added delay).

- Mean batch m: while one batch of time t runs, l*t images arrive, or none with probability exp(-l*t), and
  then the next batch is of one. So m = l*t(m) + exp(-l*t(m)), and the share of busy time is l*t(m)/m.
- An image waits for what is left of the running batch and then for its own: two long batches at worst.
- Near capacity more wait than fit. What overflows is a random walk with drift -(1-r)*B and variance I*r*B per
  batch (I: index of dispersion, r: load over capacity), whose maximum has an exponential tail of rate
  2*(1-r)/(r*I) per image beyond 0.58 deviations of a step (Siegmund's correction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from optimizer.models.batch_time import AffineTime

_DEVIATIONS_P99 = 2.33
_TAIL_P99 = math.log(100.0)
_STEP_CORRECTION = 0.583
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Service:
    """What to expect. `p99_s` is infinite and everything late when the load exceeds the capacity."""

    busy: float
    p99_s: float
    late_share: float
    images_per_s: float


def predict_service(
    time: AffineTime, batch_limit: int, rate_per_s: float, dispersion: float, slo_s: float
) -> Service:
    """Return what a load of `rate_per_s` images meets at a batch limit."""
    full_s = time.batch_s(batch_limit)
    capacity = batch_limit / full_s
    load = rate_per_s / capacity
    if load >= 1.0:
        return Service(busy=1.0, p99_s=math.inf, late_share=1.0, images_per_s=capacity)
    batch = mean_batch(time, batch_limit, rate_per_s)
    batch_s = time.batch_s(batch)
    deviation = math.sqrt(dispersion * rate_per_s * batch_s)
    long_s = time.batch_s(min(batch_limit, batch + _DEVIATIONS_P99 * deviation))
    overflow = _Overflow(load, batch_limit, dispersion)
    slack_s = slo_s - 2.0 * long_s
    too_long = min(1.0, max(0.0, -slack_s / long_s))
    late = too_long + overflow.share_beyond(max(0.0, slack_s) * capacity)
    p99_s = 2.0 * long_s + overflow.p99_images / capacity
    return Service(min(1.0, rate_per_s * batch_s / batch), p99_s, min(1.0, late), rate_per_s)


def mean_batch(time: AffineTime, batch_limit: int, rate_per_s: float) -> float:
    """Return the mean executed batch of a server whose capacity exceeds the load."""
    room = 1.0 - rate_per_s * time.per_image_s
    batch = batch_limit if room <= 0.0 else min(batch_limit, max(1.0, rate_per_s * time.fixed_s / room))
    for _ in range(_ROUNDS):
        arriving = rate_per_s * time.batch_s(batch)
        batch = min(batch_limit, max(1.0, arriving + math.exp(-arriving)))
    return batch


@dataclass(frozen=True, slots=True)
class _Overflow:
    """Images that wait although a full batch has just been taken."""

    load: float
    batch_limit: int
    dispersion: float

    @property
    def _rate(self) -> float:
        return 2.0 * (1.0 - self.load) / (max(self.load, 1e-9) * self.dispersion)

    @property
    def _correction(self) -> float:
        return _STEP_CORRECTION * math.sqrt(self.dispersion * self.load * self.batch_limit)

    @property
    def p99_images(self) -> float:
        return max(0.0, _TAIL_P99 / self._rate - self._correction)

    def share_beyond(self, images: float) -> float:
        return math.exp(-self._rate * (images + self._correction))
