"""throttLL'eM (Kakolyris et al., HPCA 2025): the lowest clock that keeps the SLO on the projected work.

A model of throughput against batch size and clock, made from offline profiling, is searched by halving the
range of clocks. The clock goes to the highest as soon as any request is already lost.

The original projects the iterations and the cache of a language model. Here the projected work is the images
that wait and those that arrive, at the rate of the last window, while a batch runs, with two standard
deviations of a Poisson count on top (the original allows for the error of its projections too). Left open,
chosen here: the model is the sweep itself, without any error; a batch is the smallest that takes in what
arrives while it runs; the SLO is kept when what waits beyond one batch, the batch that runs and the own batch
fit into it; the batch limit is the server's default.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import stay, to, why_ignored, without_clock_if_none
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.revenue import Targets, late_images
from optimizer.telemetry import Window

_DEVIATIONS = 2.0


class ThrottllemPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
        targets: not used; those of each decision count.
        sweep: the model of throughput.
    """

    def __init__(self, grid: OperatingGrid, targets: Targets, sweep: OfflineSweep) -> None:  # noqa: ARG002
        self._grid = grid
        self._sweep = sweep

    @property
    def name(self) -> str:
        """Always `throttllem`."""
        return "throttllem"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Search the clock for the work that is projected."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        default = without_clock_if_none(self._grid.default, window)
        if default.sm_clock_mhz is None:
            return to(default, "no clock to set")
        if lost := late_images(window.traffic):
            return to(default, f"{lost} images lost")
        rate_per_s = window.traffic.arrived / window.duration_s
        clock_mhz = self._lowest_mhz(rate_per_s, window.traffic.queued, targets.slo_p99_ms / 1e3)
        return to(
            OperatingPoint(default.batch_limit, clock_mhz), f"lowest clock for {rate_per_s:.0f} images/s"
        )

    def _lowest_mhz(self, rate_per_s: float, queued: int, slo_s: float) -> int:
        clocks = self._grid.sm_clocks_mhz
        index = bisect_left(clocks, True, key=lambda mhz: self._keeps_slo(mhz, rate_per_s, queued, slo_s))
        return clocks[min(index, len(clocks) - 1)]

    def _keeps_slo(self, clock_mhz: int, rate_per_s: float, queued: int, slo_s: float) -> bool:
        batch = self._batch(clock_mhz, rate_per_s)
        if batch is None:
            return False
        batch_s = self._sweep.batch_s(batch, clock_mhz)
        backlog_s = max(0, queued - batch) / batch * batch_s
        return backlog_s + 2.0 * batch_s <= slo_s

    def _batch(self, clock_mhz: int, rate_per_s: float) -> int | None:
        """Return the smallest batch that takes in what arrives while it runs; None if none does."""

        def takes_in(batch: int) -> bool:
            arriving = rate_per_s * self._sweep.batch_s(batch, clock_mhz)
            return batch >= arriving + _DEVIATIONS * math.sqrt(arriving)

        limits = self._grid.batch_limits
        index = bisect_left(limits, True, key=takes_in)
        return limits[index] if index < len(limits) else None
