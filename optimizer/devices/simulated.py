"""A GPU that exists only as a profile: it takes modelled time, draws modelled power and says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from threading import Lock

from optimizer.devices.energy_meter import EnergyMeter
from optimizer.devices.gpu import DeviceError
from optimizer.telemetry import DeviceReading, Energy, EnergySource, EventReason
from optimizer.twin.gpu_profile import GpuProfile

_LEAST_NOISE_FACTOR = 0.1


@dataclass(frozen=True, slots=True)
class _Run:
    """What one batch does at one clock, before noise."""

    seconds: float
    power_w: float
    clock_mhz: int


class SimulatedGpu:
    """Implements `Gpu` by a profile's physics. Safe to use from several threads.

    A clock comes into force after a delay from the profile's range. A batch runs at the clock in force when
    it starts, or at the largest clock that keeps the power limit. The energy counter and the power sensor
    move only once in each of their periods, as real ones do.

    Args:
        profile: what is simulated.
        clock: the time in seconds, never going backwards.
        rng_seed: makes noise and delays repeatable.
    """

    def __init__(self, profile: GpuProfile, *, clock: Callable[[], float], rng_seed: int = 0) -> None:
        self._profile = profile
        self._clock = clock
        self._random = Random(rng_seed)
        self._lock = Lock()
        self._clock_mhz = profile.boost_clock_mhz
        self._pending: tuple[float, int] | None = None
        self._runs: dict[tuple[str, int, int], _Run] = {}
        self._meter = EnergyMeter(profile.idle_power_w)
        sensor = profile.power_sensor
        self._horizon_s = max(sensor.period_s + sensor.window_s, profile.energy_counter_period_s)
        self._capped_at_mhz: int | None = None
        self._last_count_j: float | None = None

    @property
    def uuid(self) -> str:
        """`simulated-` and the profile's name."""
        return f"simulated-{self._profile.name}"

    @property
    def simulated(self) -> bool:
        """Whether the readings are modelled: always."""
        return True

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """Legal SM clocks, ascending."""
        return self._profile.sm_clocks_mhz

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        """Ask for a clock, in force after a while; None asks for the boost clock. Raises DeviceError."""
        if clock_mhz is None:
            clock_mhz = self._profile.boost_clock_mhz
        if clock_mhz not in self.sm_clocks_mhz:
            lowest, highest = self.sm_clocks_mhz[0], self.sm_clocks_mhz[-1]
            allowed = f"one of its {len(self.sm_clocks_mhz)} clocks from {lowest} to {highest} MHz"
            raise DeviceError(f"{self.uuid}: SM clock {clock_mhz} MHz is not legal; choose {allowed}")
        with self._lock:
            now_s = self._clock()
            self._settle(now_s)
            self._pending = now_s + self._random.uniform(*self._profile.clock_switch_s), clock_mhz

    def execute(self, model: str, batch: int) -> float:
        """Start a batch now: book its energy and return the seconds it takes.

        Raises KeyError for a model that the profile lacks, ValueError for a batch below 1.
        """
        if batch < 1:
            raise ValueError(f"a batch needs at least 1 image, got {batch}")
        with self._lock:
            now_s = self._clock()
            self._settle(now_s)
            run = self._run(model, batch)
            if run.clock_mhz < self._clock_mhz:
                self._capped_at_mhz = run.clock_mhz
            seconds = run.seconds * self._noise_factor(self._profile.noise.latency_cv)
            power_w = run.power_w * self._noise_factor(self._profile.noise.power_cv)
            self._meter.book(now_s, seconds, power_w)
            self._meter.forget(now_s - self._horizon_s)
            return seconds

    def expected_s(self, model: str, batch: int) -> float:
        """Return the seconds that a batch would take at the clock in force, without noise."""
        with self._lock:
            self._settle(self._clock())
            return self._run(model, batch).seconds

    def used_j(self) -> float:
        """Return the energy used since time 0 up to now, exactly: what no sensor of a real GPU shows."""
        with self._lock:
            return self._meter.joules(self._clock())

    def read(self) -> DeviceReading:
        """Return readings since the previous call; the first call opens the interval: its energy is 0."""
        with self._lock:
            now_s = self._clock()
            self._settle(now_s)
            capped_mhz, self._capped_at_mhz = self._capped_at_mhz, None
            reasons = EventReason.NONE if capped_mhz is None else EventReason.SW_POWER_CAP
            if not self._meter.busy(now_s):
                reasons |= EventReason.GPU_IDLE
            return DeviceReading(
                energy=Energy(self._energy_j(now_s), EnergySource.SIMULATED),
                power_w=self._power_w(now_s),
                sm_clock_mhz=self._clock_mhz if capped_mhz is None else min(capped_mhz, self._clock_mhz),
                event_reasons=reasons,
            )

    def _settle(self, now_s: float) -> None:
        if self._pending is not None and self._pending[0] <= now_s:
            self._clock_mhz = self._pending[1]
            self._pending = None

    def _run(self, model: str, batch: int) -> _Run:
        key = model, batch, self._clock_mhz
        if key not in self._runs:
            physics = self._profile.model(model)
            clock_mhz = self._profile.running_clock_mhz(model, batch, self._clock_mhz)
            seconds, power_w = physics.batch_s(batch, clock_mhz), physics.busy_power_w(batch, clock_mhz)
            self._runs[key] = _Run(seconds, power_w, clock_mhz)
        return self._runs[key]

    def _noise_factor(self, cv: float) -> float:
        return max(_LEAST_NOISE_FACTOR, self._random.gauss(1.0, cv)) if cv else 1.0

    def _energy_j(self, now_s: float) -> float:
        edge_s = _last_edge(now_s, self._profile.energy_counter_period_s)
        count_j = self._meter.joules(edge_s)
        energy_j = 0.0 if self._last_count_j is None else count_j - self._last_count_j
        self._last_count_j = count_j
        return max(0.0, energy_j)

    def _power_w(self, now_s: float) -> float:
        sensor = self._profile.power_sensor
        edge_s = _last_edge(now_s, sensor.period_s)
        return (self._meter.joules(edge_s) - self._meter.joules(edge_s - sensor.window_s)) / sensor.window_s


def _last_edge(now_s: float, period_s: float) -> float:
    """When something that is refreshed every `period_s` was refreshed last; 0 means always."""
    return math.floor(now_s / period_s) * period_s if period_s else now_s
