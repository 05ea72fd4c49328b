"""The alarm that goes with a decision: how many waiting or arriving images are too many for its clock."""

from __future__ import annotations

import math
from dataclasses import replace

from optimizer.models.arrivals import ArrivalModel
from optimizer.models.batch_regime import deviations
from optimizer.operating_point import OperatingPoint
from optimizer.policies.landscape import Landscape
from optimizer.policies.policy import Alarm
from optimizer.surge import Tripwire, surge_wire

_DEVIATIONS = 5.0
_FALSE_ALARM, _MOST_DEVIATIONS, _CALM = 1.5, 20.0, 0.01
_SHARE = 0.8
_KNOWN_MARGIN = 1.05


class Alarms:
    """Sets alarms, the more reluctantly the more of them were false.

    Args:
        arrivals: what is known of the traffic; of their owner, who goes on learning.
    """

    def __init__(self, arrivals: ArrivalModel) -> None:
        self._arrivals = arrivals
        self._deviations = _DEVIATIONS

    def calm_down(self) -> None:
        """Let a window pass: what was learned from false alarms fades."""
        self._deviations += _CALM * (_DEVIATIONS - self._deviations)

    def was_false(self) -> None:
        """Learn that an alarm was sounded for nothing."""
        self._deviations = min(_MOST_DEVIATIONS, _FALSE_ALARM * self._deviations)

    def alarm(
        self,
        land: Landscape,
        place: tuple[int, int],
        point: OperatingPoint,
        *,
        strong: int,
        known_per_s: float,
    ) -> Alarm | None:
        """Go to the fast point; but first only stop waiting, at a clock that held such a load before.

        Args:
            land: every setting scored.
            place: row and column of the choice.
            point: the setting that it came to.
            strong: the clock that is known to hold the highest load of late.
            known_per_s: that load, in images.
        """
        fast, (row, column) = land.fast_column, place
        if land.clock_mhz(fast) == point.sm_clock_mhz:
            return None
        to_fast = land.point(land.greedy_row(fast), fast)
        cautious_per_s = self._arrivals.cautious_rate_per_s
        soon = self._wire(land, row, column, cautious_per_s)
        if column < strong:
            return Alarm(soon, to_fast)
        hardly_exceeded_per_s = max(cautious_per_s, _KNOWN_MARGIN * known_per_s)
        late = Alarm(self._wire(land, land.greedy_row(column), column, hardly_exceeded_per_s), to_fast)
        return Alarm(soon, replace(point, max_delay_ms=0.0), late) if point.max_delay_ms else late

    def _wire(self, land: Landscape, row: int, column: int, expected_per_s: float) -> Tripwire:
        """Trip when more wait than this clock can answer in time or chance explains, or when more come."""
        slack_s = max(0.0, _SHARE * land.spare_s - land.steady_batch_s(column))
        usual = deviations(land.mean_images(row), self._arrivals.dispersion, self._deviations) + 1.0
        bearable = land.capacity_per_s(column)
        queued = math.ceil(max(usual, bearable * slack_s))
        scale = (self._deviations / _DEVIATIONS) ** 2
        return surge_wire(queued, expected_per_s, bearable, scale)
