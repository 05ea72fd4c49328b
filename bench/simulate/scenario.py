"""What is simulated: a GPU with a network, the traffic, and what the operator wants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.targets import Targets
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.slowdown import Slowdown


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One rehearsal. It starts at midnight.

    Args:
        profile: the GPU.
        model: the network's name in the profile.
        arrivals_s: when each image arrives, ascending, from 0 to `duration_s`.
        duration_s: how long images arrive. After that the queue has as long as the SLO to drain, so that
            every image that is still unanswered at the end is late.
        targets: what the operator wants.
        seed: of the GPU's noise and delays.
        max_batch: the engine's largest batch.
        interval_s: between two decisions.
        deadline_s: after which an image that was not answered is given up; None for patient clients.
        slowdowns: when the GPU holds its clock down for a reason of its own, whoever decides.

    Raises ValueError for arrivals out of order or beyond the duration, or a number that makes no sense.
    """

    profile: GpuProfile
    model: str
    arrivals_s: NDArray[np.float64]
    duration_s: float
    targets: Targets
    seed: int
    max_batch: int = 128
    interval_s: float = 1.0
    deadline_s: float | None = None
    slowdowns: tuple[Slowdown, ...] = ()

    def __post_init__(self) -> None:
        times_s = self.arrivals_s
        if times_s.ndim != 1 or (np.diff(times_s) < 0.0).any():
            raise ValueError("arrivals_s must be one row of ascending times")
        if times_s.size and not 0.0 <= times_s[0] <= times_s[-1] <= self.duration_s:
            raise ValueError(f"arrivals_s must lie from 0 to {self.duration_s:g} s")
        if self.max_batch < 1 or self.duration_s <= 0.0 or self.interval_s <= 0.0:
            raise ValueError("max_batch must be at least 1, duration_s and interval_s greater than 0")
        illegal = {s.clock_mhz for s in self.slowdowns} - set(self.profile.sm_clocks_mhz)
        if illegal:
            raise ValueError(f"{self.profile.name} cannot be slowed down to {illegal} MHz: not its clocks")

    @property
    def end_s(self) -> float:
        """When the simulation ends: every image was answered by then, or is late."""
        return self.duration_s + self.targets.slo_p99_ms / 1e3


def grid_of(scenario: Scenario) -> OperatingGrid:
    """Return the legal settings: every batch limit up to the engine's largest, every clock of the GPU."""
    return OperatingGrid(tuple(range(1, scenario.max_batch + 1)), scenario.profile.sm_clocks_mhz)


def default_point(scenario: Scenario) -> OperatingPoint:
    """Return the setting of a server without governing: the largest batch, no delay, the boost clock."""
    return OperatingPoint(scenario.max_batch, scenario.profile.boost_clock_mhz)
