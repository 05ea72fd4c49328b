"""Morak, as the authors of PctoDL re-implemented it: batch size and clock by power and latency.

    power <= a * cap:              latency <= b * SLO ? batch + 1 : clock + step
    a * cap < power <= 1.02 * cap: hold
    above:                         latency > b * SLO ? batch - step : clock - step

The step is 10, 5, 2 or 1 positions for a gap between power and cap of more than 20, 10, 5 % or less.

Left open there, chosen here: a = 0.95 and b = 0.9, the latency is the p99, the power that of the whole
window, positions are those of the grid, and it starts at the server's default. Without a cap in the targets
the cap is 80 % of the board's limit, under which it does best of the shares from 0.6 to 1 of it that were
tried on a simulated V100; without a known board limit there is no cap.
"""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import mean_power_w, place, power_cap_w, shift, stay, to, why_ignored
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_CAP_SHARE = 0.8
_NEAR_CAP = 0.95
_OVER_CAP = 1.02
_NEAR_SLO = 0.9
_GEARS = ((0.20, 10), (0.10, 5), (0.05, 2))


class MorakPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
        board_limit_w: the power limit of the board; None when it is not known.
    """

    def __init__(self, grid: OperatingGrid, board_limit_w: float | None) -> None:
        self._grid = grid
        self._board_limit_w = board_limit_w

    @property
    def name(self) -> str:
        """Always `morak`."""
        return "morak"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Take one step."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        power_w, cap_w = mean_power_w(window), power_cap_w(targets, self._board_limit_w, _CAP_SHARE)
        if power_w is None:
            return stay(self._grid, window, "power is not measured")
        slow = (window.traffic.latency_p99_ms or 0.0) > _NEAR_SLO * targets.slo_p99_ms
        point = self._next(place(self._grid, window), power_w / cap_w, slow=slow)
        return to(point, f"drew {power_w:.0f} W of {cap_w:.0f} W, {'not ' if slow else ''}quick enough")

    def _next(self, here: OperatingPoint, load: float, *, slow: bool) -> OperatingPoint:
        step = _gear(abs(load - 1.0))
        if load > _OVER_CAP:
            return self._moved(here, batches=-step) if slow else self._moved(here, clocks=-step)
        if load > _NEAR_CAP:
            return here
        return self._moved(here, clocks=step) if slow else self._moved(here, batches=1)

    def _moved(self, here: OperatingPoint, *, batches: int = 0, clocks: int = 0) -> OperatingPoint:
        clock_mhz = here.sm_clock_mhz
        if clock_mhz is not None:
            clock_mhz = shift(self._grid.sm_clocks_mhz, clock_mhz, clocks)
        return OperatingPoint(shift(self._grid.batch_limits, here.batch_limit, batches), clock_mhz)


def _gear(gap: float) -> int:
    return next((step for above, step in _GEARS if gap > above), 1)
