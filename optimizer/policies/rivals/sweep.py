"""What a policy that tunes offline may measure before it serves: every batch size at every clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.revenue import Targets

NO_CLOCK_MHZ = 1.0
"""Handed to a sweep where no clock is governed; it is to be ignored."""
_BATCHES_PER_ANSWER = 2
_UTILISATION = 0.9


@dataclass(frozen=True, slots=True)
class OfflineSweep:
    """One network on one card, measured at leisure under full load.

    Args:
        batch_s: seconds that a batch takes, from its images and the SM clock in MHz.
        busy_power_w: mean power while that batch runs, from the same.
        idle_power_w: power between batches.
        power_limit_w: the board's limit; what would draw more runs at a lower clock instead.
        peak_images_per_s: the highest load to be ready for, where the operator knows it; 0 where not.
    """

    batch_s: Callable[[int, float], float]
    busy_power_w: Callable[[int, float], float]
    idle_power_w: float
    power_limit_w: float
    peak_images_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What the sweep finds at a setting with full batches."""

    point: OperatingPoint
    batch_s: float
    power_w: float

    @property
    def images_per_s(self) -> float:
        """Throughput in full batches."""
        return self.point.batch_limit / self.batch_s

    @property
    def joules_per_image(self) -> float:
        """Energy of an image in full batches."""
        return self.power_w / self.images_per_s

    def answers_in_time(self, targets: Targets) -> bool:
        """Whether the SLO is kept under full load: an image waits for the running batch and for its own."""
        return _BATCHES_PER_ANSWER * self.batch_s * 1e3 <= targets.slo_p99_ms

    def carries(self, images_per_s: float) -> bool:
        """Whether a load leaves a tenth of the throughput over."""
        return images_per_s <= _UTILISATION * self.images_per_s


def try_all(grid: OperatingGrid, sweep: OfflineSweep) -> list[Trial]:
    """Return a trial of every setting of the grid."""
    return [trial for limit in grid.batch_limits for trial in try_clocks(grid, sweep, limit)]


def try_clocks(grid: OperatingGrid, sweep: OfflineSweep, batch_limit: int) -> list[Trial]:
    """Return a trial of every clock at one batch limit, ascending; one trial where there are no clocks.

    Once the board's power limit is reached, a higher clock changes nothing.
    """
    trials: list[Trial] = []
    for clock_mhz in grid.sm_clocks_mhz or (None,):
        trial = _try(sweep, OperatingPoint(batch_limit, clock_mhz))
        if trials and trial.power_w > sweep.power_limit_w:
            held = trials[-1]
            trial = Trial(trial.point, held.batch_s, held.power_w)
        trials.append(trial)
    return trials


def _try(sweep: OfflineSweep, point: OperatingPoint) -> Trial:
    clock_mhz = NO_CLOCK_MHZ if point.sm_clock_mhz is None else point.sm_clock_mhz
    batch = point.batch_limit
    return Trial(point, sweep.batch_s(batch, clock_mhz), sweep.busy_power_w(batch, clock_mhz))
