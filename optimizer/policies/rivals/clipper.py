"""Clipper (Crankshaw et al., NSDI 2017): additive increase, multiplicative decrease of the batch size.

The batch size grows by a fixed step until a batch takes longer than the latency objective, and is then cut by
10 %. The clock is not governed: it stays at boost.

Left open there, chosen here: the step is 8 images a window (Clipper steps after every batch, of which a
window holds many); the objective of a batch is half the SLO, because an image waits for the batch that runs
and then for its own (Clipper leaves it to the operator to turn one into the other); it starts at the
server's default.
"""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import place, stay, to, toward, why_ignored, without_clock_if_none
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_STEP_IMAGES = 8
_BACK_OFF = 0.9
_OBJECTIVE_SHARE = 0.5


class ClipperPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._grid = grid

    @property
    def name(self) -> str:
        """Always `clipper`."""
        return "clipper"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Step up, or back off when a batch of the window missed the objective."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        batches = window.traffic.batches.values()
        slowest_ms = max(times.total_s / times.count for times in batches if times.count > 0) * 1e3
        objective_ms = _OBJECTIVE_SHARE * targets.slo_p99_ms
        limit = place(self._grid, window).batch_limit
        missed = slowest_ms > objective_ms
        wanted = toward(
            self._grid.batch_limits, limit, _BACK_OFF * limit if missed else float(limit + _STEP_IMAGES)
        )
        point = without_clock_if_none(OperatingPoint(wanted, self._grid.default.sm_clock_mhz), window)
        return to(point, f"a batch took {slowest_ms:.1f} ms of {objective_ms:g} ms")
