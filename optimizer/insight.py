"""What a policy has learned, as a person wants to read it; its saved state is for itself alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class TriedSetting:
    """What batches of about one size did at about one clock.

    Args:
        batch: images in a batch.
        sm_clock_mhz: the legal clock nearest to those that were set; None where it is not governed.
        batch_ms: how long such a batch took.
        power_w: power while such a batch runs, as the policy reckons with it; None: no energy was measured.
        known: how well the times are known, 0 to 1.
    """

    batch: int
    sm_clock_mhz: int | None
    batch_ms: float
    power_w: float | None
    known: float


@dataclass(frozen=True, slots=True)
class Insight:
    """What a policy has learned of the machine and the traffic.

    Args:
        tried: settings that were measured, by clock and batch.
        idle_power_w: power while nothing runs; None where no energy was measured.
        doubt: how far from the expected towards the slowest possible time guesses are taken to go, 0 to 1.
        overhead_ms: what answers take on top of what is predicted; negative when less.
        rate_per_s: images a second to expect.
        burstiness: variance over mean of the images that come within a batch's time, at least 1.
        unevenness: the same of whole windows.
        evenness: the shape of the gaps between requests; 1 by chance or unless known better, more for evener
            ones: see `models/evenness`.
    """

    tried: tuple[TriedSetting, ...]
    idle_power_w: float | None
    doubt: float
    overhead_ms: float
    rate_per_s: float
    burstiness: float
    unevenness: float
    evenness: float = 1.0


@runtime_checkable
class Insightful(Protocol):
    """A policy that can tell what it has learned."""

    def insight(self) -> Insight:
        """Tell, without learning or forgetting anything."""
