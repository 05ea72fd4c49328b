"""mu-Serve (Qiu et al., ATC 2024): multiplicative increase, additive decrease of the clock by p99 slack.

Left open there, chosen here: the clock doubles when less than a tenth of the SLO is left between p99 and SLO,
falls by 2 % of the highest clock when more than a fifth is left, and stays in between (so that a clock that
fits is kept). The batch limit is the server's default.
"""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import place, stay, to, toward, why_ignored
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_INCREASE = 2.0
_DECREASE_SHARE = 0.02
_LITTLE_SLACK_ABOVE, _MUCH_SLACK_BELOW = 0.9, 0.8
"""As shares of the SLO that the p99 uses up."""


class MuServePolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._grid = grid

    @property
    def name(self) -> str:
        """Always `mu-serve`."""
        return "mu-serve"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Raise the clock by a factor, lower it by a step, or keep it."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        used = (window.traffic.latency_p99_ms or 0.0) / targets.slo_p99_ms
        clock_mhz = place(self._grid, window).sm_clock_mhz
        if clock_mhz is not None:
            clock_mhz = self._next_mhz(clock_mhz, used)
        point = OperatingPoint(self._grid.default.batch_limit, clock_mhz)
        return to(point, f"the p99 is {used:.0%} of the SLO")

    def _next_mhz(self, clock_mhz: int, used: float) -> int:
        clocks = self._grid.sm_clocks_mhz
        if used > _LITTLE_SLACK_ABOVE:
            return toward(clocks, clock_mhz, _INCREASE * clock_mhz)
        if used < _MUCH_SLACK_BELOW:
            return toward(clocks, clock_mhz, clock_mhz - _DECREASE_SHARE * clocks[-1])
        return clock_mhz
