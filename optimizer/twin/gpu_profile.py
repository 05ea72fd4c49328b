"""What a simulated GPU is: its clocks, limits, sensors and the networks it can run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.twin.physics import BatchPhysics


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """A power reading is refreshed every `period_s` and averages the last `window_s`."""

    period_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Coefficients of variation (deviation over mean) of batch time and power, from batch to batch."""

    latency_cv: float = 0.0
    power_cv: float = 0.0


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """One GPU and the networks it can run.

    Clocks ascend; `clock_switch_s` is the range of delays; the power limiter takes `power_cap_settle_s`.
    """

    name: str
    source: str
    sm_clocks_mhz: tuple[int, ...]
    boost_clock_mhz: int
    power_limit_w: float
    idle_power_w: float
    clock_switch_s: tuple[float, float]
    power_sensor: PowerSensor
    energy_counter_period_s: float
    noise: Noise
    models: Mapping[str, BatchPhysics]
    power_cap_settle_s: float = 0.0

    def model(self, name: str) -> BatchPhysics:
        """Return a network's physics. Raises KeyError that names those there are."""
        if name not in self.models:
            raise KeyError(
                f"profile {self.name} has no model {name!r}; it has {', '.join(sorted(self.models))}"
            )
        return self.models[name]

    def running_clock_mhz(self, model: str, batch: int, wanted_mhz: int) -> int:
        """Return the largest legal clock up to `wanted_mhz` whose power stays within the limit."""
        physics = self.model(model)
        legal = self.sm_clocks_mhz[: max(1, bisect_right(self.sm_clocks_mhz, wanted_mhz))]
        within = (
            clock for clock in reversed(legal) if physics.busy_power_w(batch, clock) <= self.power_limit_w
        )
        return next(within, legal[0])
