"""GPOEO (Wang et al., TPDS 2022): predicts the best clock, then searches around it with measured energy.

Energy and time of an iteration are predicted for every clock relative to the highest one; the clock of the
least energy whose time is at most 4.5 % longer is the start of a golden-section search on measured energy
around it. After each change 4 s pass before anything is measured.

The original learns its predictions offline, from other programs and hardware counters. Left open or different
here, chosen in its favour: the prediction is the sweep itself, without any error; an iteration is the batches
of the time measured, its energy what the card draws in that time (its idleness included) for each image; each
measurement takes 4 s; the search spans a tenth of the highest clock to either side; a clock that exceeds the
loss limit counts as worse than any that does not; the search begins anew when the energy of an image leaves
that of the clock found by more than a fifth twice in a row. The memory clock and the batch limit stay at the
server's default.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.golden_section import GoldenSection
from optimizer.policies.rivals.reading import busy_s, stay, to, why_ignored
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_WAIT_S, _MEASURE_S = 4.0, 4.0
_LOSS_LIMIT = 0.045
_REACH_SHARE = 0.1
_CHANGED, _TIMES_CHANGED = 0.2, 2
_OVER_LIMIT_J = 1e6
_ROUNDING_S = 1e-6


@dataclass
class _Measurement:
    """What accumulates at one clock. The first `_WAIT_S` count for nothing."""

    waited_s: float = 0.0
    duration_s: float = 0.0
    joules: float = 0.0
    busy_s: float = 0.0
    images: int = 0
    counts: Counter[int] = field(default_factory=Counter)

    def add(self, window: Window, joules: float) -> bool:
        """Add a window; True once there is enough."""
        if self.waited_s < _WAIT_S - _ROUNDING_S:
            self.waited_s += window.duration_s
            return False
        self.duration_s += window.duration_s
        self.joules += joules
        self.busy_s += busy_s(window)
        self.images += window.traffic.completed
        self.counts.update({size: times.count for size, times in window.traffic.batches.items()})
        return self.duration_s >= _MEASURE_S - _ROUNDING_S

    @property
    def joules_per_image(self) -> float:
        return self.joules / self.images


class GpoeoPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.
        targets: not used; the rule knows a loss of time and no SLO.
        sweep: what predicts energy and time.
    """

    def __init__(self, grid: OperatingGrid, targets: Targets, sweep: OfflineSweep) -> None:  # noqa: ARG002
        self._grid = grid
        self._sweep = sweep
        self._clock = len(grid.sm_clocks_mhz) - 1
        self._measured = _Measurement()
        self._search: GoldenSection | None = None
        self._found = False
        self._found_j: float | None = None
        self._changes = 0

    @property
    def name(self) -> str:
        """Always `gpoeo`."""
        return "gpoeo"

    def decide(self, window: Window, targets: Targets) -> Decision:  # noqa: ARG002  # it knows no SLO
        """Wait, measure, and go on with the search."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        joules = window.device.energy.joules
        if joules is None or window.point.sm_clock_mhz is None or not self._grid.sm_clocks_mhz:
            return stay(self._grid, window, "no clock to set, or energy is not measured")
        if window.point != self._point:
            self._measured = _Measurement()
            return to(self._point, "begins")
        if not self._measured.add(window, joules):
            return to(self._point, "waits and measures")
        measured = self._measured
        self._judge(measured)
        return to(
            self._point,
            f"{'searches' if self._search else 'found'}; {measured.joules_per_image:.3g} J an image",
        )

    @property
    def _point(self) -> OperatingPoint:
        return OperatingPoint(self._grid.batch_limits[-1], self._grid.sm_clocks_mhz[self._clock])

    def _judge(self, measured: _Measurement) -> None:
        """Go on with the search, begin one, or stay; and clear what was measured."""
        self._measured = _Measurement(waited_s=_WAIT_S)
        if self._search is not None:
            self._search.tell(self._clock, self._cost(measured))
        elif not self._found or self._changed(measured.joules_per_image):
            self._search = self._around(self._predicted(measured))
        if self._search is not None:
            self._go_on(self._search)

    def _go_on(self, search: GoldenSection) -> None:
        wanted = search.ask()
        if wanted is None:
            self._search, self._found, self._found_j, self._changes = None, True, None, 0
            wanted = search.best
        if wanted != self._clock:
            self._clock, self._measured = wanted, _Measurement()

    def _changed(self, joules_per_image: float) -> bool:
        """Whether the energy of an image has left what it was first at the clock found."""
        if self._found_j is None:
            self._found_j = joules_per_image
        off = abs(joules_per_image / self._found_j - 1.0) > _CHANGED
        self._changes = self._changes + 1 if off else 0
        return self._changes >= _TIMES_CHANGED

    def _cost(self, measured: _Measurement) -> float:
        """Return the energy of an image; over the loss limit more than any, and more the more it is over."""
        loss = measured.busy_s / self._time_s(measured, len(self._grid.sm_clocks_mhz) - 1) - 1.0
        return measured.joules_per_image if loss <= _LOSS_LIMIT else _OVER_LIMIT_J * (1.0 + loss)

    def _predicted(self, measured: _Measurement) -> int:
        """Return the clock of the least predicted energy within the loss limit."""
        clocks = range(len(self._grid.sm_clocks_mhz))
        longest_s = (1.0 + _LOSS_LIMIT) * self._time_s(measured, clocks[-1])
        allowed = [clock for clock in clocks if self._time_s(measured, clock) <= longest_s]
        return min(allowed, key=lambda clock: self._energy_j(measured, clock))

    def _time_s(self, measured: _Measurement, clock: int) -> float:
        """Return the predicted seconds of the batches measured, at another clock."""
        clock_mhz = self._grid.sm_clocks_mhz[clock]
        return sum(n * self._sweep.batch_s(batch, clock_mhz) for batch, n in measured.counts.items())

    def _energy_j(self, measured: _Measurement, clock: int) -> float:
        """Return the predicted energy of the batches measured above that of idling, at another clock."""
        clock_mhz, sweep = self._grid.sm_clocks_mhz[clock], self._sweep
        return sum(
            n * sweep.batch_s(batch, clock_mhz) * (sweep.busy_power_w(batch, clock_mhz) - sweep.idle_power_w)
            for batch, n in measured.counts.items()
        )

    def _around(self, clock: int) -> GoldenSection:
        clocks = self._grid.sm_clocks_mhz
        reach_mhz = _REACH_SHARE * clocks[-1]
        near = [i for i, other_mhz in enumerate(clocks) if abs(other_mhz - clocks[clock]) <= reach_mhz]
        return GoldenSection(near[0], near[-1])
