"""A day at one setting, batch by batch instead of image by image: what a search in hindsight needs.

At a setting that never moves and without deadlines, the batch queue with no added delay is simple: whenever
the engine is free and anything waits, the oldest images, up to the limit, are the next batch. This yields the
same batches as `SimulatedServer` does, at a fraction of the work.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.power_limiter import PowerLimiter

Floats = NDArray[np.float64]

_LEAST_NOISE_FACTOR = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class BatchCosts:
    """Seconds and watts of a batch of every size, at one clock; the index is the size, from 0.

    A size in `settled_mhz` would exceed the power limit at `clock_mhz`: its figures are those at the clock
    where the limiter settles.
    """

    profile: GpuProfile
    model: str
    clock_mhz: int
    seconds: Sequence[float]
    power_w: Sequence[float]
    settled_mhz: Mapping[int, int]


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
    return BatchCosts(
        profile=profile,
        model=model,
        clock_mhz=clock_mhz,
        seconds=[0.0, *(physics.batch_s(size, clock) for size, clock in pairs)],
        power_w=[0.0, *(physics.busy_power_w(size, clock) for size, clock in pairs)],
        settled_mhz={size: clock for size, clock in pairs if clock < clock_mhz},
    )


class _Course:
    """What batches cost, one clock after another; under the power limit what `SimulatedGpu` makes of it.

    Args:
        costs: from the beginning.
        later: from when on others hold, ascending.
    """

    def __init__(self, costs: BatchCosts, later: Sequence[tuple[float, BatchCosts]]) -> None:
        self.costs = costs
        self.spans = [(0, costs)]
        self.change_s = later[0][0] if later else math.inf
        self._later = list(later)
        self._physics = costs.profile.model(costs.model)
        self._limiter = PowerLimiter(costs.profile.sm_clocks_mhz, costs.profile.power_cap_settle_s)

    def change(self, start_s: float, batch: int) -> BatchCosts:
        """Go on to the costs of a batch that starts at or after `change_s`; `batch` is its index."""
        while self._later and self._later[0][0] <= start_s:
            _, self.costs = self._later.pop(0)
        self.spans.append((batch, self.costs))
        self.change_s = self._later[0][0] if self._later else math.inf
        return self.costs

    def limited(self, size: int, start_s: float) -> tuple[float, float]:
        """Return seconds and watts of a batch of a limited size, before noise."""
        costs = self.costs
        settled_mhz = costs.settled_mhz[size]
        clock_mhz = self._limiter.clock_mhz(start_s, costs.clock_mhz, settled_mhz)
        seconds, power_w = costs.seconds[size], costs.power_w[size]
        if clock_mhz != settled_mhz:
            seconds = self._physics.batch_s(size, clock_mhz)
            power_w = self._physics.busy_power_w(size, clock_mhz)
        self._limiter.ran_until(start_s + seconds)
        return seconds, power_w

    def power_w(self, images: NDArray[np.int64]) -> Floats:
        """Return the power of all batches that ran, as if there were no limit."""
        ends = [*(first for first, _ in self.spans[1:]), images.size]
        spans = zip(self.spans, ends, strict=True)
        return np.concatenate([np.array(costs.power_w)[images[first:end]] for (first, costs), end in spans])


def batch_noise(profile: GpuProfile, batches: int, seed: int) -> BatchNoise:
    """Draw the noise of so many batches. The same for every setting, so that settings compare cleanly."""
    random = np.random.default_rng(seed)

    def factors(cv: float) -> Floats:
        return np.maximum(_LEAST_NOISE_FACTOR, random.normal(1.0, cv, batches)) if cv else np.ones(batches)

    return BatchNoise(factors(profile.noise.latency_cv).tolist(), factors(profile.noise.power_cv))


def serve_fixed(
    arrivals_s: Sequence[float],
    batch_limit: int,
    costs: BatchCosts,
    noise: BatchNoise,
    end_s: float,
    later: Sequence[tuple[float, BatchCosts]] = (),
) -> Batches:
    """Serve single images that arrive at ascending times, starting no batch after `end_s`.

    `noise` must hold at least as many batches as there are arrivals. `later` says from when on batches cost
    something else, ascending: where the card holds its clock down, and where it lets go.
    """
    padded = [*arrivals_s, *repeat(math.inf, batch_limit)]
    course = _Course(costs, later)
    starts, firsts, took, limited_w = _batches(padded, batch_limit, course, noise.seconds, end_s)
    edges = np.array(firsts, dtype=np.int64)
    images = edges[1:] - edges[:-1]
    power_w = course.power_w(images)
    power_w[list(limited_w)] = list(limited_w.values())
    return Batches(np.array(starts), np.array(took), images, power_w * noise.power[: images.size])


def _batches(
    arrivals_s: Sequence[float],
    batch_limit: int,
    course: _Course,
    factors: Iterable[float],
    end_s: float,
) -> tuple[list[float], list[int], list[float], dict[int, float]]:
    """Return each batch's start, first image (and, at the end, the first not taken), and seconds.

    Also the watts of those that the power limit slowed down, by their index. Arrivals must end in as many
    that never come as a batch holds.
    """
    seconds_of, settled_mhz, change_s = course.costs.seconds, course.costs.settled_mhz, course.change_s
    taken, free_s = 0, 0.0
    starts: list[float] = []
    firsts, took, limited_w = [0], [], {}
    for factor in factors:
        first_s = arrivals_s[taken]
        start_s = first_s if first_s > free_s else free_s
        if start_s > end_s:
            break
        if start_s >= change_s:
            costs = course.change(start_s, len(starts))
            seconds_of, settled_mhz, change_s = costs.seconds, costs.settled_mhz, course.change_s
        before = taken
        taken = bisect_right(arrivals_s, start_s, taken, taken + batch_limit)
        size = taken - before
        seconds = seconds_of[size]
        if size in settled_mhz:
            seconds, limited_w[len(starts)] = course.limited(size, start_s)
        seconds *= factor
        free_s = start_s + seconds
        starts.append(start_s)
        firsts.append(taken)
        took.append(seconds)
    return starts, firsts, took, limited_w


def energy_until(batches: Batches, idle_w: float, times_s: Floats) -> Floats:
    """Return the energy in joules used from 0 up to each of some times."""
    if not batches.images.size:
        return idle_w * times_s
    edges_s = np.column_stack((batches.starts_s, batches.ends_s)).ravel()
    above_j = np.cumsum((batches.power_w - idle_w) * batches.seconds)
    steps_j = np.column_stack((np.concatenate(([0.0], above_j[:-1])), above_j)).ravel()
    busy_j: Floats = np.interp(times_s, edges_s, steps_j)
    return idle_w * times_s + busy_j
