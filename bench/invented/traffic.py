"""Traffic drawn by lot."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from optimizer.twin.arrivals import diurnal, flash_crowd, mmpp, poisson, steps

Times = NDArray[np.float64]
KINDS = ("steady", "diurnal", "bursty", "steps", "flash-crowd", "requests", "waves of requests")
_IMAGES = ((1,), (2,), (4,), (8,), (16,), (1, 1, 2, 4, 8), (1, 32))


def invent_traffic(random: Random, most_per_s: float, duration_s: float) -> tuple[str, Times]:
    """Draw arrivals of at most some images a second for so long. Returns the kind, and the times."""
    kind, seed = random.choice(KINDS), random.randrange(1 << 30)
    return kind, _drawn(kind, random, seed, most_per_s, duration_s)


def _drawn(kind: str, random: Random, seed: int, most_per_s: float, duration_s: float) -> Times:
    if kind == "steady":
        return poisson(most_per_s, duration_s, seed=seed)
    if kind == "diurnal":
        swing, period_s = random.uniform(0.3, 1.0), random.uniform(20.0, 60.0)
        return diurnal(most_per_s / (1.0 + swing), swing, period_s, duration_s, seed=seed)
    if kind == "bursty":
        rates = random.uniform(0.1, 0.5) * most_per_s, most_per_s
        stays_s = random.uniform(0.5, 10.0), random.uniform(0.5, 10.0)
        return mmpp(rates, stays_s, duration_s, seed=seed)
    if kind == "steps":
        parts = [(duration_s / 5.0, most_per_s * random.choice([0.0, 0.1, 0.4, 1.0])) for _ in range(5)]
        return steps(parts, seed=seed)
    if kind == "flash-crowd":
        at_s, rise_s, hold_s = random.uniform(0.2, 0.6), random.uniform(0.005, 0.1), random.uniform(0.05, 0.3)
        phases_s = at_s * duration_s, rise_s * duration_s, hold_s * duration_s, 0.1 * duration_s
        return flash_crowd(0.2 * most_per_s, most_per_s, *phases_s, duration_s, seed=seed)
    return _in_requests(kind, random, seed, most_per_s, duration_s)


def _in_requests(kind: str, random: Random, seed: int, most_per_s: float, duration_s: float) -> Times:
    """Requests of several images each, some traffic of which swells and ebbs."""
    images, draw = random.choice(_IMAGES), np.random.default_rng(seed)
    requests_per_s = most_per_s / float(np.mean(images))
    swing = random.uniform(0.3, 0.9) if kind == "waves of requests" else 0.0
    starts_s = diurnal(requests_per_s / (1.0 + swing), swing, 30.0, duration_s, seed=seed)
    return np.repeat(starts_s, draw.choice(images, starts_s.size))
