"""BatchDVFS (Nabavinejad, Reda, Ebrahimi, TPDS 2022): batch size first, then clock, under a power cap.

The signal is the highest power of 3 s, held against a dead band of 0.8 to 1.0 of the cap. Below the band the
batch size is searched upward by halving the interval, and once it is at its limit the clock goes one step up;
above, the batch size is searched downward, and once it is 1 the clock goes one step down. There are ten
clocks, and it starts at batch 1 and the clock of index 5. Latency is no part of it.

Left open there, chosen here: its clocks are those of a Tesla P40, mapped by their share of the highest
clock to the nearest legal one; a search that has closed opens again towards the side that is asked for.
Without a cap in the targets the cap is the board's limit, under which it does best of the shares from 0.6
to 1 of it that were tried on a simulated V100; without a known board limit there is no cap.
"""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import (
    highest_power_w,
    power_cap_w,
    stay,
    to,
    why_ignored,
    without_clock_if_none,
)
from optimizer.revenue import Targets
from optimizer.telemetry import Window

PUBLISHED_CLOCKS_MHZ = (544, 632, 734, 835, 949, 1063, 1189, 1303, 1430, 1531)
_START_INDEX = 5
_DEAD_BAND = 0.8
_PERIOD_S = 3.0
_ROUNDING_S = 1e-6


class BatchDvfsPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
        board_limit_w: the power limit of the board; None when it is not known.
    """

    def __init__(self, grid: OperatingGrid, board_limit_w: float | None) -> None:
        self._limits = grid.batch_limits
        self._grid = grid
        self._clocks = _ten_clocks(grid.sm_clocks_mhz)
        self._clock = min(_START_INDEX, len(self._clocks) - 1)
        self._board_limit_w = board_limit_w
        self._low, self._batch, self._high = 0, 0, len(self._limits) - 1
        self._seen_s, self._highest_w = 0.0, 0.0

    @property
    def name(self) -> str:
        """Always `batchdvfs`."""
        return "batchdvfs"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Gather 3 s of power, then search on."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        power_w = highest_power_w(window)
        if power_w is None:
            return stay(self._grid, window, "power is not measured")
        here = self._point(window)
        if here != window.point:
            return self._begin(here)
        self._seen_s += window.duration_s
        self._highest_w = max(self._highest_w, power_w)
        if self._seen_s < _PERIOD_S - _ROUNDING_S:
            return to(here, f"{self._seen_s:.0f} s of {_PERIOD_S:.0f} s seen")
        return self._judge(window, targets)

    def _begin(self, point: OperatingPoint) -> Decision:
        self._seen_s, self._highest_w = 0.0, 0.0
        return to(point, "begins")

    def _judge(self, window: Window, targets: Targets) -> Decision:
        power_w, cap_w = self._highest_w, power_cap_w(targets, self._board_limit_w)
        if power_w > cap_w:
            self._less()
        elif power_w < _DEAD_BAND * cap_w:
            self._more()
        self._seen_s, self._highest_w = 0.0, 0.0
        return to(self._point(window), f"drew up to {power_w:.0f} W of {cap_w:.0f} W")

    def _more(self) -> None:
        last = len(self._limits) - 1
        if self._batch == last:
            self._clock = min(self._clock + 1, len(self._clocks) - 1)
            return
        self._low = self._batch
        if self._high <= self._batch:
            self._high = last
        self._batch = (self._batch + self._high + 1) // 2

    def _less(self) -> None:
        if self._batch == 0:
            self._clock = max(self._clock - 1, 0)
            return
        self._high = self._batch
        if self._low >= self._batch:
            self._low = 0
        self._batch = (self._low + self._batch) // 2

    def _point(self, window: Window) -> OperatingPoint:
        clock_mhz = self._clocks[self._clock] if self._clocks else None
        return without_clock_if_none(OperatingPoint(self._limits[self._batch], clock_mhz), window)


def _ten_clocks(axis: tuple[int, ...]) -> tuple[int, ...]:
    if not axis:
        return ()
    scale = axis[-1] / PUBLISHED_CLOCKS_MHZ[-1]
    nearest = {min(axis, key=lambda clock: abs(clock - scale * wanted)) for wanted in PUBLISHED_CLOCKS_MHZ}
    return tuple(sorted(nearest))
