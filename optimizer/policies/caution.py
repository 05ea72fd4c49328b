"""How much of the SLO a prediction may use up, learned from how many answers were late."""

from __future__ import annotations

import math

from optimizer.models.machine import window_work
from optimizer.policies.landscape import Margins
from optimizer.revenue import Targets, late_images, settled_images
from optimizer.telemetry import Window

_SLO_SHARE, _LEAST_SLO_SHARE, _MOST_SLO_SHARE = 0.97, 0.5, 1.1
_LATE_SHARE_ALLOWED, _DEVIATIONS, _LATE_TOGETHER = 0.01, 2.0, 2.0
_LEAST_WANTED, _LATE_MEMORY = 0.006, 0.95
_MORE_CAUTION, _MOST_CORRECTION, _LESS_CAUTION = 0.006, 0.04, 0.008
_ENOUGH = 0.98
_OVERHEAD_WEIGHT, _WEIGHT_OF_MORE, _MOST_WEIGHT = 0.12, 2.5, 0.5
"""What exceeds SLO and expectation is believed the sooner the more it is, as a share of the SLO."""
_MOST_OVERHEAD, _MOST_CREDIT = 0.5, 0.03


class Caution:
    """How much of the SLO is used: less after answers that were late unexpectedly, more while few are.

    An SLO of 99 per cent allows for some late answers. Where a setting was chosen because it just keeps the
    SLO, and fewer were late than may be, a little more of the SLO is used the next time; otherwise calm
    leads back to where it began, and no further.
    """

    def __init__(self, overhead_ms: float = 0.0) -> None:
        self._slo_share = _SLO_SHARE
        self._overhead_ms = overhead_ms
        self._late = self._answered = self._squares = self._windows = 0.0
        self._batch = 1.0

    @property
    def overhead_ms(self) -> float:
        """The latency beside what is predicted, as learned."""
        return self._overhead_ms

    def margins(self, reserve_per_s: float, surge_per_s: float = 0.0, surges: float = 0.0) -> Margins:
        """Return what to keep free now; what is known of loads is passed on."""
        return Margins(self._slo_share, self._overhead_ms, reserve_per_s, surge_per_s, surges)

    def count(self, window: Window) -> None:
        """Count the late answers of any window: whatever made them late, they are no longer allowed for."""
        late = late_images(window.traffic)
        self._late = _LATE_MEMORY * self._late + late
        self._squares = _LATE_MEMORY * self._squares + late * late
        self._windows = _LATE_MEMORY * self._windows + 1.0
        self._answered = _LATE_MEMORY * self._answered + settled_images(window.traffic)
        self._batch = max(1.0, window_work(window).batch)

    def observe(
        self,
        window: Window,
        targets: Targets,
        expected_p99_ms: float | None,
        *,
        surged: bool,
        slo_bound: bool,
        hopeless: bool = False,
    ) -> None:
        """Learn from a window at the setting that was decided on; nothing of one that surged.

        `slo_bound`: but for the SLO another setting would have been chosen. `hopeless`: nothing was expected
        to keep the SLO; then late answers are no reason for more caution, which would only hide that some
        settings have fewer of them than others.
        """
        if surged:
            return
        self._learn_share(window, targets, slo_bound=slo_bound, hopeless=hopeless)
        if expected_p99_ms is not None and window.traffic.queued <= 2 * window.point.batch_limit:
            self._learn_overhead(window, targets, expected_p99_ms)

    def crowded(self, window: Window, targets: Targets, expected_p99_ms: float | None) -> None:
        """Learn from late answers that an alarm ended, though batches took no longer than expected."""
        measured_ms = window.traffic.latency_p99_ms
        if expected_p99_ms is not None and measured_ms is not None and measured_ms > expected_p99_ms:
            self._learn_overhead(window, targets, expected_p99_ms)

    def _learn_share(self, window: Window, targets: Targets, *, slo_bound: bool, hopeless: bool) -> None:
        """Use more of the SLO where late answers are left and there is use for them; less where none are."""
        room = self._room(late_images(window.traffic) / max(1, settled_images(window.traffic)))
        if hopeless:
            room = max(0.0, room)
        off_the_edge = (window.traffic.latency_p99_ms or 0.0) < _ENOUGH * targets.slo_p99_ms
        if room <= 0.0 and self._slo_share > _SLO_SHARE and self.overspent > 0.0:
            less = min(_MOST_CORRECTION, _MORE_CAUTION * (self.overspent - room))
            self._slo_share = max(_SLO_SHARE, self._slo_share - less)
        elif room < 0.0:
            less = min(_MOST_CORRECTION, -_MORE_CAUTION * room)
            self._slo_share = max(_LEAST_SLO_SHARE, self._slo_share - less)
        elif slo_bound and off_the_edge:
            self._slo_share = min(_MOST_SLO_SHARE, self._slo_share + _LESS_CAUTION * room)
        elif self._slo_share < _SLO_SHARE:
            self._slo_share = min(_SLO_SHARE, self._slo_share + _LESS_CAUTION * room)

    def _room(self, late_now: float) -> float:
        """Return the share of the wanted late answers that is left; negative where now too many are."""
        spent, wanted = self._late / max(1.0, self._answered), self._wanted
        room = 1.0 - 0.5 * (late_now + min(spent, wanted)) / wanted
        return room if spent < wanted else min(0.0, room)

    @property
    def overspent(self) -> float:
        """By which share of those wanted there were too many late answers of late; negative when fewer."""
        return self._late / max(1.0, self._answered) / self._wanted - 1.0

    @property
    def _wanted(self) -> float:
        """The share of late answers to aim at: what is allowed, less what chance may add to it.

        Images are late by the batch at least; how many together is seen from how unevenly windows have them.
        """
        seen = self._squares / self._late - self._late / self._windows if self._late else 0.0
        together = max(_LATE_TOGETHER * self._batch, seen)
        chance = math.sqrt(together * _LATE_SHARE_ALLOWED / max(1.0, self._answered))
        return max(_LEAST_WANTED, _LATE_SHARE_ALLOWED - _DEVIATIONS * chance)

    def _learn_overhead(self, window: Window, targets: Targets, expected_p99_ms: float) -> None:
        """Learn what latency comes on top of the predicted one, e.g. that of the network."""
        if window.traffic.latency_p99_ms is None:
            return
        slo_ms = targets.slo_p99_ms
        excess_ms = window.traffic.latency_p99_ms - (expected_p99_ms - self._overhead_ms)
        wanted_ms = min(max(-_MOST_CREDIT * slo_ms, excess_ms), _MOST_OVERHEAD * slo_ms)
        beyond_ms = window.traffic.latency_p99_ms - slo_ms
        more = max(0.0, min(beyond_ms, wanted_ms - self._overhead_ms)) / slo_ms
        weight = min(_MOST_WEIGHT, _OVERHEAD_WEIGHT + _WEIGHT_OF_MORE * more)
        self._overhead_ms += weight * (wanted_ms - self._overhead_ms)
