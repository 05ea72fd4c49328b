"""A GPU that exists only as a profile: it takes modelled time, draws modelled power and says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from threading import Lock

import numpy as np

from optimizer.devices.energy_meter import EnergyMeter
from optimizer.devices.gpu import DeviceError
from optimizer.telemetry import DeviceReading, Energy, EnergySource, EventReason
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.power_limiter import PowerLimiter
from optimizer.twin.slowdown import Slowdown, edges_s, held_mhz

_LEAST_NOISE_FACTOR = 0.1
_NOISE_BLOCK = 1024
_COUNTS_PER_JOULE = 1000.0


@dataclass(frozen=True, slots=True)
class _Run:
    """What one batch does at one clock, before noise."""

    seconds: float
    power_w: float
    clock_mhz: int


class SimulatedGpu:
    """Implements `Gpu` by a profile's physics. Safe to use from several threads.

    A clock comes into force after a delay from the profile's range. A batch runs at the clock in force when
    it starts. Where it would exceed the power limit, the limiter brings the clock down, within the profile's
    settling time, to the largest that keeps the limit. The energy counter counts whole millijoules and, like
    the power sensor, moves only once in each of its periods.

    Args:
        profile: what is simulated.
        clock: the time in seconds, never going backwards.
        rng_seed: makes noise and delays repeatable.
    """

    def __init__(self, profile: GpuProfile, *, clock: Callable[[], float], rng_seed: int = 0) -> None:
        self._profile = profile
        self._clock = clock
        self._random = Random(rng_seed)
        self._generator = np.random.default_rng(rng_seed)
        self._normals: list[float] = []
        self._lock = Lock()
        self._set_mhz = self._clock_mhz = profile.boost_clock_mhz
        self._pending: tuple[float, int] | None = None
        self._slowdowns: list[Slowdown] = []
        self._next_change_s = math.inf
        self._runs: dict[tuple[str, int, int], _Run] = {}
        sensor = profile.power_sensor
        self._meter = EnergyMeter(
            profile.idle_power_w, max(sensor.period_s + sensor.window_s, profile.energy_counter_period_s)
        )
        self._limiter = PowerLimiter(profile.sm_clocks_mhz, profile.power_cap_settle_s)
        self._capped_at_mhz: int | None = None
        self._last_count_j: float | None = None
        self._last_read_s = -math.inf

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
            self._next_change_s = min(self._next_change_s, self._pending[0])

    def slow_down(self, slowdown: Slowdown) -> None:
        """Hold the clock down for a time, as a card does that grows too hot.

        Readings of intervals that this touches give the reason. Raises ValueError for an illegal clock.
        """
        if slowdown.clock_mhz not in self.sm_clocks_mhz:
            raise ValueError(
                f"{self.uuid}: a slowdown to {slowdown.clock_mhz} MHz is not to one of its clocks"
            )
        with self._lock:
            self._slowdowns.append(slowdown)
            self._next_change_s = -math.inf

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
                run = self._limited(run, model, batch, now_s)
            noise = self._profile.noise
            seconds = run.seconds * self._noise_factor(noise.latency_cv)
            self._meter.book(now_s, seconds, run.power_w * self._noise_factor(noise.power_cv))
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
            reasons = self._slowdown_reasons(now_s)
            if capped_mhz is not None:
                reasons |= EventReason.SW_POWER_CAP
            if not self._meter.busy(now_s):
                reasons |= EventReason.GPU_IDLE
            return DeviceReading(
                energy=Energy(self._energy_j(now_s), EnergySource.SIMULATED),
                power_w=self._power_w(now_s),
                sm_clock_mhz=self._clock_mhz if capped_mhz is None else min(capped_mhz, self._clock_mhz),
                event_reasons=reasons,
            )

    def _settle(self, now_s: float) -> None:
        if now_s < self._next_change_s:
            return
        if self._pending is not None and self._pending[0] <= now_s:
            self._set_mhz = self._pending[1]
            self._pending = None
        self._clock_mhz = held_mhz(self._slowdowns, self._set_mhz, now_s)
        changes_s = [*edges_s(self._slowdowns)]
        if self._pending is not None:
            changes_s.append(self._pending[0])
        self._next_change_s = min((edge_s for edge_s in changes_s if edge_s > now_s), default=math.inf)

    def _slowdown_reasons(self, now_s: float) -> EventReason:
        """Return the reasons of the slowdowns since the previous reading, and forget those that are over."""
        reasons = EventReason.NONE
        for slowdown in self._slowdowns:
            if slowdown.start_s <= now_s and slowdown.end_s > self._last_read_s:
                reasons |= slowdown.reason
        self._slowdowns = [slowdown for slowdown in self._slowdowns if slowdown.end_s > now_s]
        self._last_read_s = now_s
        return reasons

    def _run(self, model: str, batch: int) -> _Run:
        """What a batch does at the clock in force once the limiter has settled."""
        key = model, batch, self._clock_mhz
        run = self._runs.get(key)
        if run is None:
            clock_mhz = self._profile.running_clock_mhz(model, batch, self._clock_mhz)
            run = self._runs[key] = self._run_at(model, batch, clock_mhz)
        return run

    def _run_at(self, model: str, batch: int, clock_mhz: int) -> _Run:
        physics = self._profile.model(model)
        return _Run(physics.batch_s(batch, clock_mhz), physics.busy_power_w(batch, clock_mhz), clock_mhz)

    def _limited(self, settled: _Run, model: str, batch: int, now_s: float) -> _Run:
        """What a batch does that the power limit slows down, while the limiter settles and after."""
        clock_mhz = self._limiter.clock_mhz(now_s, self._clock_mhz, settled.clock_mhz)
        run = settled if clock_mhz == settled.clock_mhz else self._run_at(model, batch, clock_mhz)
        self._limiter.ran_until(now_s + run.seconds)
        self._capped_at_mhz = min(clock_mhz, self._capped_at_mhz or clock_mhz)
        return run

    def _noise_factor(self, cv: float) -> float:
        if not cv:
            return 1.0
        if not self._normals:
            self._normals = self._generator.standard_normal(_NOISE_BLOCK).tolist()
        factor = 1.0 + cv * self._normals.pop()
        return factor if factor > _LEAST_NOISE_FACTOR else _LEAST_NOISE_FACTOR

    def _energy_j(self, now_s: float) -> float:
        edge_s = _last_edge(now_s, self._profile.energy_counter_period_s)
        count_j = math.floor(self._meter.joules(edge_s) * _COUNTS_PER_JOULE + 1e-6) / _COUNTS_PER_JOULE
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
