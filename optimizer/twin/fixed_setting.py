"""A day at one setting, batch by batch instead of image by image: what a search in hindsight needs.

At a setting that never moves and without deadlines, the batch queue with no added delay is simple: whenever
the engine is free and anything waits, the oldest images, up to the limit, are the next batch. This yields the
same batches as `SimulatedServer` does, at a fraction of the work.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.twin.gpu_profile import GpuProfile

Floats = NDArray[np.float64]

_LEAST_NOISE_FACTOR = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class BatchCosts:
    """Seconds and watts of a batch of every size, at one clock; the index is the size, from 0."""

    seconds: Floats
    power_w: Floats


@dataclass(frozen=True, slots=True, eq=False)
class BatchNoise:
    """Factors on the time and the power of each batch, in the order in which the batches start."""

    seconds: Sequence[float]
    power: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The batches that ran, in order: when each started, how long it took, its images, its power."""

    starts_s: Floats
    seconds: Floats
    images: NDArray[np.int64]
    power_w: Floats

    @property
    def ends_s(self) -> Floats:
        """When each batch was done."""
        return self.starts_s + self.seconds


def batch_costs(profile: GpuProfile, model: str, clock_mhz: int, max_batch: int) -> BatchCosts:
    """Ask a profile's physics about every batch size at a clock, the power limit included."""
    physics, sizes = profile.model(model), range(1, max_batch + 1)
    clocks = [profile.running_clock_mhz(model, size, clock_mhz) for size in sizes]
    pairs = list(zip(sizes, clocks, strict=True))
    seconds = [physics.batch_s(size, clock) for size, clock in pairs]
    return BatchCosts(
        np.array([0.0, *seconds]),
        np.array([0.0, *(physics.busy_power_w(size, clock) for size, clock in pairs)]),
    )


def batch_noise(profile: GpuProfile, batches: int, seed: int) -> BatchNoise:
    """Draw the noise of so many batches. The same for every setting, so that settings compare cleanly."""
    random = np.random.default_rng(seed)

    def factors(cv: float) -> Floats:
        return np.maximum(_LEAST_NOISE_FACTOR, random.normal(1.0, cv, batches)) if cv else np.ones(batches)

    return BatchNoise(factors(profile.noise.latency_cv).tolist(), factors(profile.noise.power_cv))


def serve_fixed(
    arrivals_s: Sequence[float], batch_limit: int, costs: BatchCosts, noise: BatchNoise, end_s: float
) -> Batches:
    """Serve single images that arrive at ascending times, starting no batch after `end_s`.

    `noise` must hold at least as many batches as there are arrivals.
    """
    starts, firsts, took = _batches(arrivals_s, batch_limit, costs.seconds.tolist(), noise.seconds, end_s)
    images: NDArray[np.int64] = np.array(firsts[1:], dtype=np.int64) - np.array(firsts[:-1], dtype=np.int64)
    power_w = costs.power_w[images] * noise.power[: images.size]
    return Batches(np.array(starts), np.array(took), images, power_w)


def _batches(
    arrivals_s: Sequence[float],
    batch_limit: int,
    seconds_of: Sequence[float],
    factors: Iterable[float],
    end_s: float,
) -> tuple[list[float], list[int], list[float]]:
    """Return every batch's start, its first image (and, at the end, the first not taken), and its seconds."""
    count, taken, free_s = len(arrivals_s), 0, 0.0
    starts: list[float] = []
    firsts, took = [0], []
    for factor in factors:
        if taken == count:
            break
        first_s = arrivals_s[taken]
        start_s = first_s if first_s > free_s else free_s
        if start_s > end_s:
            break
        before = taken
        taken = bisect_right(arrivals_s, start_s, taken, min(taken + batch_limit, count))
        seconds = seconds_of[taken - before] * factor
        free_s = start_s + seconds
        starts.append(start_s)
        firsts.append(taken)
        took.append(seconds)
    return starts, firsts, took


def energy_until(batches: Batches, idle_w: float, times_s: Floats) -> Floats:
    """Return the energy in joules used from 0 up to each of some times."""
    if not batches.images.size:
        return idle_w * times_s
    edges_s = np.column_stack((batches.starts_s, batches.ends_s)).ravel()
    above_j = np.cumsum((batches.power_w - idle_w) * batches.seconds)
    steps_j = np.column_stack((np.concatenate(([0.0], above_j[:-1])), above_j)).ravel()
    busy_j: Floats = np.interp(times_s, edges_s, steps_j)
    return idle_w * times_s + busy_j
