"""The claim of Joule Point: one static power cap a card is within a percent of every network's own optimum.

At constant full load the energy of an image depends on the network and the clock alone, so the claim can be
computed from the profile. What it is worth under other traffic, the tournament simulates: see `cap_point`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from optimizer.operating_point import OperatingPoint
from optimizer.twin.gpu_profile import GpuProfile

UTILISATION = 0.9
"""A setting is held to carry a load that is at most this share of its throughput."""


@dataclass(frozen=True, slots=True)
class OneCap:
    """The cap that suits all networks of a card best at full load, and what each loses by it.

    Args:
        cap_w: the cap.
        cap_share: the cap over the card's power limit.
        excess: by network: joules per image under the cap over those at its own best clock, less 1.
    """

    gpu: str
    cap_w: float
    cap_share: float
    excess: Mapping[str, float]


def one_cap(profile: GpuProfile, max_batch: int) -> OneCap:
    """Find the cap with the lowest mean excess over the profile's networks, all in largest batches."""
    caps = {
        profile.model(model).busy_power_w(max_batch, clock)
        for model in profile.models
        for clock in profile.sm_clocks_mhz
    }
    allowed = sorted(cap for cap in caps if cap <= profile.power_limit_w) or [profile.power_limit_w]
    best = min(allowed, key=lambda cap: fmean(_excess(profile, max_batch, cap).values()))
    return OneCap(profile.name, best, best / profile.power_limit_w, _excess(profile, max_batch, best))


def cap_point(
    profile: GpuProfile, model: str, cap_w: float, slo_ms: float, peak_rate: float, max_batch: int
) -> OperatingPoint:
    """Return the setting of a server under the cap: the largest batch, at the clock that the cap leaves.

    The cap is raised where its clock would not hold the SLO at the highest rate, in images a second.
    """
    capped = clock_under(profile, model, max_batch, cap_w)
    enough = (
        clock
        for clock in profile.sm_clocks_mhz
        if clock >= capped and _holds(profile, model, clock, slo_ms, peak_rate, max_batch)
    )
    return OperatingPoint(max_batch, next(enough, profile.boost_clock_mhz))


def clock_under(profile: GpuProfile, model: str, batch: int, cap_w: float) -> int:
    """Return the highest clock at which full batches draw no more than the cap; else the lowest there is."""
    physics = profile.model(model)
    within = (f for f in reversed(profile.sm_clocks_mhz) if physics.busy_power_w(batch, f) <= cap_w)
    return next(within, profile.sm_clocks_mhz[0])


def _excess(profile: GpuProfile, batch: int, cap_w: float) -> dict[str, float]:
    found = {}
    for model in profile.models:
        under_cap = _joules_per_image(profile, model, batch, clock_under(profile, model, batch, cap_w))
        best = min(_joules_per_image(profile, model, batch, clock) for clock in profile.sm_clocks_mhz)
        found[model] = under_cap / best - 1.0
    return found


def _joules_per_image(profile: GpuProfile, model: str, batch: int, clock_mhz: int) -> float:
    physics = profile.model(model)
    return physics.busy_power_w(batch, clock_mhz) * physics.batch_s(batch, clock_mhz) / batch


def _holds(
    profile: GpuProfile, model: str, clock_mhz: int, slo_ms: float, rate: float, max_batch: int
) -> bool:
    physics = profile.model(model)
    times = ((batch, physics.batch_s(batch, clock_mhz)) for batch in range(1, max_batch + 1))
    return any(2e3 * time_s <= slo_ms and rate <= UTILISATION * batch / time_s for batch, time_s in times)
