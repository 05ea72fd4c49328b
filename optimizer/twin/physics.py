"""How long a batch takes and what power it draws, from a few parameters of the chip and of the network.

Time, with b images at SM clock f and the boost clock F:

    t(b, f) = launch + memory + compute * F / f + b * roofline(compute_per_image * F / f, memory_per_image)
    roofline(c, m) = (c^s + m^s)^(1/s)

The launch part belongs to the host, the memory parts to a memory clock that does not move; only the compute
parts follow the SM clock, so throughput is concave in it. A layer takes the longer of its computation and its
memory traffic. Over a network with layers of either kind that adds up to something between the longer of the
sums (sharpness s endless) and both together (s = 1).

Power while a batch runs, with the relative voltage v(f), flat up to a knee and then rising to 1 at boost:

    P(b, f) = constant + leakage * v^3 + clock_tree * f/F * v^2
              + activity * u(b)^exponent * t(b, F) / t(b, f) * (m + (1 - m) * v^2)

u(b) is the throughput at batch b over that of an endless batch, m the part of the activity that is in memory
and so keeps its voltage. The energy of an operation goes with the square of the voltage; leakage is steeper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class BatchPhysics(Protocol):
    """What a network does on a GPU, at any batch size from 1 and any legal clock."""

    def batch_s(self, batch: int, clock_mhz: float) -> float:
        """Return the seconds that one batch takes."""

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        """Return the mean power while that batch runs."""


@dataclass(frozen=True, slots=True)
class Chip:
    """The part of the power that does not depend on the network. Watts are those at the boost clock."""

    boost_clock_mhz: float
    knee_clock_mhz: float
    floor_voltage: float
    constant_w: float
    leakage_w: float
    clock_tree_w: float

    def voltage(self, clock_mhz: float) -> float:
        """Return the voltage relative to that at the boost clock."""
        above = (clock_mhz - self.knee_clock_mhz) / (self.boost_clock_mhz - self.knee_clock_mhz)
        return self.floor_voltage + (1.0 - self.floor_voltage) * max(0.0, above)

    def standing_power_w(self, clock_mhz: float) -> float:
        """Return the power of an awake chip that computes nothing."""
        voltage = self.voltage(clock_mhz)
        clocked_w = self.clock_tree_w * clock_mhz / self.boost_clock_mhz * voltage**2
        return self.constant_w + self.leakage_w * voltage**3 + clocked_w


@dataclass(frozen=True, slots=True)
class ParametricPhysics:
    """A network on a chip. Times in milliseconds at the boost clock; see the module for the formulas."""

    chip: Chip
    launch_ms: float
    memory_ms: float
    memory_ms_per_image: float
    compute_ms: float
    compute_ms_per_image: float
    activity_w: float
    activity_exponent: float
    memory_activity_share: float
    roofline_sharpness: float = 1.0

    def batch_s(self, batch: int, clock_mhz: float) -> float:
        """Return the seconds that one batch takes."""
        stretch = self.chip.boost_clock_mhz / clock_mhz
        once_ms = self.launch_ms + self.memory_ms + self.compute_ms * stretch
        return (once_ms + self._ms_per_image(stretch) * batch) / 1e3

    def _ms_per_image(self, stretch: float) -> float:
        sharpness = self.roofline_sharpness
        compute_ms = self.compute_ms_per_image * stretch
        return math.pow(compute_ms**sharpness + self.memory_ms_per_image**sharpness, 1.0 / sharpness)

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        """Return the mean power while that batch runs."""
        boost_s = self.batch_s(batch, self.chip.boost_clock_mhz)
        utilisation = self._ms_per_image(1.0) * batch / boost_s / 1e3
        in_memory = self.memory_activity_share
        scale = in_memory + (1.0 - in_memory) * self.chip.voltage(clock_mhz) ** 2
        active_w = self.activity_w * math.pow(utilisation, self.activity_exponent)
        slowdown = self.batch_s(batch, clock_mhz) / boost_s
        return self.chip.standing_power_w(clock_mhz) + active_w / slowdown * scale
