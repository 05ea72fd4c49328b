"""Arrival processes for simulation: times of single images, ascending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random


def poisson(rate_per_s: float, until_s: float, *, start_s: float = 0.0, seed: int = 0) -> Iterator[float]:
    """Yield Poisson arrival times from `start_s` to `until_s`; none when the rate is 0."""
    random, now_s = Random(seed), start_s
    while rate_per_s > 0.0:
        now_s += random.expovariate(rate_per_s)
        if now_s >= until_s:
            return
        yield now_s


def poisson_steps(steps: Sequence[tuple[float, float]], *, seed: int = 0) -> Iterator[float]:
    """Yield Poisson arrivals through steps of (duration_s, rate_per_s), one after the other."""
    start_s = 0.0
    for index, (duration_s, rate_per_s) in enumerate(steps):
        yield from poisson(rate_per_s, start_s + duration_s, start_s=start_s, seed=seed + 7919 * index)
        start_s += duration_s
