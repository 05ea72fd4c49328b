"""What a cell asks of its GPU: the SLO, the fast point and its capacity, by rules that hold for any profile.

With t(b) the time of a batch of b images at the boost clock (or at what the power limit leaves of it) and B
the engine's largest batch:

    tight    4 * t(1)
    medium   4 * sqrt(t(1) * t(B))
    loose    4 * t(B)

An image that comes while a batch runs waits for that one and then takes one of its own, so an SLO of two
batch times is the least that can be kept at all, and four leave as much again for chance and a lower clock.
The **fast point** is the largest batch at boost of which two fit the SLO; its **capacity** is the throughput
there, and all arrival rates are shares of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from optimizer.operating_point import OperatingPoint
from optimizer.twin.gpu_profile import GpuProfile

BATCH_TIMES_IN_SLO = 4.0


@dataclass(frozen=True, slots=True)
class Demands:
    """The SLO of a cell, and what the GPU can do under it. `capacity` is in images a second."""

    slo_ms: float
    fast_point: OperatingPoint
    capacity: float


def demands_of(profile: GpuProfile, model: str, slo: str, max_batch: int) -> Demands:
    """Apply the rules of the module. Raises KeyError for an unknown network or SLO."""
    one_s = boost_batch_s(profile, model, 1)
    most_s = boost_batch_s(profile, model, max_batch)
    slo_s = BATCH_TIMES_IN_SLO * _between(one_s, most_s)[slo]
    batch = max(
        (b for b in range(1, max_batch + 1) if 2.0 * boost_batch_s(profile, model, b) <= slo_s), default=1
    )
    fast = OperatingPoint(batch, profile.boost_clock_mhz)
    return Demands(slo_s * 1e3, fast, batch / boost_batch_s(profile, model, batch))


def _between(one_s: float, most_s: float) -> dict[str, float]:
    return {"tight": one_s, "medium": math.sqrt(one_s * most_s), "loose": max(one_s, most_s)}


def boost_batch_s(profile: GpuProfile, model: str, batch: int) -> float:
    """Return the seconds of a batch at boost, or at the clock to which the power limit lowers it."""
    clock_mhz = profile.running_clock_mhz(model, batch, profile.boost_clock_mhz)
    return profile.model(model).batch_s(batch, clock_mhz)
