"""The energy counter against the sum of power readings over the same time: do they tell the same joules?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from optimizer.devices.nvml.library import Card, PowerField
from optimizer.devices.nvml.power_integral import PowerIntegral

_STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class EnergyCheck:
    """Joules of one span of time by two ways. `summed_j` is None when power could not be had throughout."""

    seconds: float
    counted_j: float
    summed_j: float | None
    field: PowerField

    @property
    def difference_share(self) -> float | None:
        """(summed - counted) / counted; None without either."""
        if self.summed_j is None or self.counted_j <= 0.0:
            return None
        return (self.summed_j - self.counted_j) / self.counted_j


def check_energy(
    card: Card,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyCheck:
    """Count and sum energy for a while. Raises NvmlFailure for a card without energy counter or power."""
    field = card.power_w().field
    integral = PowerIntegral(lambda: card.power_w().watts, clock)
    try:
        integral.take()
        began_s, began_j = clock(), card.energy_j()
        summed_j: float | None = 0.0
        while clock() - began_s < seconds:
            sleep(_STEP_S)
            taken = integral.take().joules
            summed_j = None if taken is None or summed_j is None else summed_j + taken
        return EnergyCheck(clock() - began_s, card.energy_j() - began_j, summed_j, field)
    finally:
        integral.close()
