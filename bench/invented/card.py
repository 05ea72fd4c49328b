"""A card drawn by lot, with one network whose measured surface it is known by. All of it is simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from optimizer.twin.gpu_profile import GpuProfile, Noise, PowerSensor
from optimizer.twin.surface import ClockSweep, SurfacePhysics

NETWORK = "invented"
_MEASURED_CV = 0.01
"""How far a measured point lies from the truth, as a share."""


@dataclass(frozen=True, slots=True)
class _Physics:
    """What a surface is measured on: times in ms at the highest clock, powers in W.

    A batch takes a launch, and computation or memory traffic, whichever is more, rounded by `sharpness`;
    memory does not follow the clock. The voltage is flat up to a knee and then rises.
    """

    launch_ms: float
    compute_ms: tuple[float, float]
    memory_ms: tuple[float, float]
    sharpness: float
    static_w: float
    activity_w: float
    exponent: float
    memory_share: float
    floor_voltage: float
    knee: float
    limit_w: float

    def batch_ms(self, batch: int, clock: float) -> float:
        """Return the time of a batch; `clock` is a share of the highest, as below."""
        compute, memory = self._parts_ms(batch, clock)
        both: float = (compute**self.sharpness + memory**self.sharpness) ** (1.0 / self.sharpness)
        return self.launch_ms / math.sqrt(clock) + both

    def power_w(self, batch: int, clock: float) -> float:
        """Return the power while it runs."""
        compute, memory = (part / self.batch_ms(batch, clock) for part in self._parts_ms(batch, clock))
        rise = max(0.0, clock - self.knee) / (1.0 - self.knee)
        voltage = self.floor_voltage + (1.0 - self.floor_voltage) * rise
        core: float = compute**self.exponent * clock * voltage**2 * (1.0 - self.memory_share)
        power_w = self.static_w * voltage**2 + self.activity_w * (core + self.memory_share * memory)
        return min(self.limit_w, power_w)

    def _parts_ms(self, batch: int, clock: float) -> tuple[float, float]:
        compute = (self.compute_ms[0] + self.compute_ms[1] * batch) / clock
        return compute, self.memory_ms[0] + self.memory_ms[1] * batch


def invent_card(random: Random) -> GpuProfile:
    """Draw clocks, limits, sensors, noise and the surface of one network."""
    clocks_mhz, limit_w = _clocks_mhz(random), random.choice([70.0, 150.0, 250.0, 300.0, 400.0, 700.0])
    idle_w = limit_w * random.uniform(0.06, 0.25)
    surface = _measured(_physics(random, idle_w, limit_w), clocks_mhz, random)
    return GpuProfile(
        name="invented",
        source="drawn by lot",
        sm_clocks_mhz=clocks_mhz,
        boost_clock_mhz=clocks_mhz[-1],
        power_limit_w=limit_w,
        idle_power_w=idle_w,
        clock_switch_s=(random.choice([0.01, 0.02, 0.05]), random.choice([0.08, 0.25, 0.4])),
        power_sensor=PowerSensor(random.choice([0.02, 0.1]), random.choice([0.025, 0.1, 1.0])),
        energy_counter_period_s=random.choice([0.02, 0.1]),
        noise=Noise(random.choice([0.003, 0.01, 0.02, 0.05]), random.choice([0.01, 0.02, 0.04])),
        models={NETWORK: surface},
    )


def _clocks_mhz(random: Random) -> tuple[int, ...]:
    """From nine clocks far apart to a hundred and more close together."""
    first, last = random.choice([135, 210, 300, 405, 510]), random.uniform(1000.0, 2500.0)
    count = random.choice([9, 18, 40, 80, 111])
    return tuple(round(first + (last - first) * place / (count - 1)) for place in range(count))


def _physics(random: Random, idle_w: float, limit_w: float) -> _Physics:
    return _Physics(
        launch_ms=random.uniform(0.05, 1.0),
        compute_ms=(random.uniform(0.05, 0.8), random.uniform(0.02, 0.6)),
        memory_ms=(random.uniform(0.05, 1.5), random.uniform(0.01, 0.4)),
        sharpness=random.uniform(1.2, 4.0),
        static_w=idle_w + limit_w * random.uniform(0.02, 0.12),
        activity_w=limit_w * random.uniform(0.5, 1.2),
        exponent=random.uniform(0.8, 1.6),
        memory_share=random.uniform(0.05, 0.4),
        floor_voltage=random.uniform(0.7, 0.9),
        knee=random.uniform(0.45, 0.75),
        limit_w=limit_w,
    )


def _measured(physics: _Physics, clocks_mhz: Sequence[int], random: Random) -> SurfacePhysics:
    """Measure a few batches at a few clocks, with the errors that measurements have."""
    inner = random.sample(clocks_mhz[1:-1], min(len(clocks_mhz) - 2, random.randint(2, 6)))
    chosen = tuple(sorted((clocks_mhz[0], clocks_mhz[-1], *inner)))
    largest = random.choice([48, 64, 100, 128])
    sizes = sorted({1, random.choice([2, 3, 4]), 8, random.choice([12, 16, 24]), 32, largest})
    return SurfacePhysics(tuple(_sweep(physics, size, chosen, random) for size in sizes))


def _sweep(physics: _Physics, batch: int, clocks_mhz: tuple[int, ...], random: Random) -> ClockSweep:
    shares = [clock / clocks_mhz[-1] for clock in clocks_mhz]
    times = tuple(physics.batch_ms(batch, share) * random.gauss(1.0, _MEASURED_CV) for share in shares)
    powers = tuple(physics.power_w(batch, share) * random.gauss(1.0, _MEASURED_CV) for share in shares)
    return ClockSweep(batch, tuple(map(float, clocks_mhz)), times, powers)
