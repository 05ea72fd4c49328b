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
_STANDS_STILL_S = 1.0  # it is refreshed every 20 to 100 ms, and no GPU draws nothing
_MOST_W = 10_000.0  # several times what any board draws

logger = logging.getLogger("boulton.gpu")


class GpuEnergy:
    """The energy of one GPU from call to call. One thread reads.

    A counter that cannot be had is replaced by the sum of power readings, for good: figures of two sources
    are not mixed more than once. So is one that stands still. Where the counter went backwards, jumped by
    more than any GPU draws, or was not read for a while, the energy of that interval is not measured.

    Args:
        card: the GPU.
        watch: asks it.
        clock: the time in seconds.
    """

    def __init__(self, card: Card, watch: Watch, clock: Callable[[], float]) -> None:
        self._card = card
        self._watch = watch
        self._clock = clock
        self._integral = PowerIntegral(lambda: watch.ask("the power", self._watts), clock)
        self._integrates = False
        self._began = False
        self._last_j: float | None = None
        self._last_s = 0.0
        self._moved: tuple[float, float] | None = None  # when the counter came to where it is
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
        now_s = self._clock()
        if count_j is None or self._stands_still(now_s, count_j):
            return self._without_counter(first)
        last_j, last_s = self._last_j, self._last_s
        self._last_j, self._last_s, self._failures = count_j, now_s, 0
        if last_j is None:
            return Energy(0.0, EnergySource.NVML_ENERGY_COUNTER) if first else NOT_MEASURED
        why_not = _why_not_energy(count_j - last_j, now_s - last_s)
        if why_not:
            logger.warning("%s: its energy counter %s: an interval is not measured", self._card.uuid, why_not)
            return NOT_MEASURED
        return Energy(count_j - last_j, EnergySource.NVML_ENERGY_COUNTER)

    def _stands_still(self, now_s: float, count_j: float) -> bool:
        """Whether the counter shows the same for so long that it does not count."""
        if self._moved is None or self._moved[1] != count_j:
            self._moved = now_s, count_j
        still = now_s - self._moved[0] >= _STANDS_STILL_S
        if still and not self._failures:
            logger.warning("%s: its energy counter stands still", self._card.uuid)
        return still

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


def _why_not_energy(joules: float, seconds: float) -> str:
    """Say why a difference of the counter is no energy; empty where it may be."""
    if joules < 0.0:
        return "went back, as after a reload of the driver"
    if joules > _MOST_W * (seconds + 1.0):
        return f"jumped by {joules:g} J in {seconds:.1f} s, which no GPU draws"
    return ""
