"""A GPU's energy: differences of its counter, or the sum of its power where there is no counter."""

from __future__ import annotations

import logging
from collections.abc import Callable

from optimizer.devices.nvml.library import Card
from optimizer.devices.nvml.power_integral import PowerIntegral
from optimizer.devices.nvml.watch import Watch
from optimizer.telemetry import NOT_MEASURED, Energy, EnergySource

_COUNTER = "the energy counter"
_FAILURES_ENOUGH = 3  # in a row, whatever their codes

logger = logging.getLogger("boulton.gpu")


class GpuEnergy:
    """The energy of one GPU from call to call. One thread reads.

    A counter that cannot be had is replaced by the sum of power readings, for good: figures of two sources
    are not mixed more than once. Where the counter went backwards, or was not read for a while, the energy
    of that interval is not measured.

    Args:
        card: the GPU.
        watch: asks it.
        clock: the time in seconds.
    """

    def __init__(self, card: Card, watch: Watch, clock: Callable[[], float]) -> None:
        self._card = card
        self._watch = watch
        self._integral = PowerIntegral(lambda: watch.ask("the power", self._watts), clock)
        self._integrates = False
        self._began = False
        self._last_j: float | None = None
        self._failures = 0

    def read(self) -> Energy:
        """Return the energy since the previous call; the first call opens the interval: its energy is 0.

        The counter is refreshed every 20 to 100 ms: two calls in quick succession may see 0 J between them.
        """
        if self._watch.lost:
            self._last_j = None  # should it come back, what it used meanwhile belongs to no interval
            return NOT_MEASURED
        first, self._began = not self._began, True
        return self._integral.take() if self._integrates else self._from_counter(first)

    def close(self) -> None:
        """End the sampling of power."""
        self._integral.close()

    def _from_counter(self, first: bool) -> Energy:
        count_j = self._watch.ask(_COUNTER, self._card.energy_j)
        if count_j is None:
            return self._without_counter(first)
        last_j, self._last_j, self._failures = self._last_j, count_j, 0
        if last_j is None:
            return Energy(0.0, EnergySource.NVML_ENERGY_COUNTER) if first else NOT_MEASURED
        if count_j < last_j:
            lost = (
                "its energy counter went back, as after a reload of the driver: an interval is not measured"
            )
            logger.warning("%s: %s", self._card.uuid, lost)
            return NOT_MEASURED
        return Energy(count_j - last_j, EnergySource.NVML_ENERGY_COUNTER)

    def _without_counter(self, first: bool) -> Energy:
        self._last_j, self._failures = None, self._failures + 1
        if self._watch.lost or not (self._watch.lacks(_COUNTER) or self._failures >= _FAILURES_ENOUGH):
            return NOT_MEASURED
        self._integrates = True
        logger.info("%s: energy is summed from power readings from now on", self._card.uuid)
        opening = self._integral.take()
        return opening if first else NOT_MEASURED

    def _watts(self) -> float:
        return self._card.power_w().watts
