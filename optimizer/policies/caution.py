"""How much of the SLO a prediction may use up, learned from how many answers were late."""

from __future__ import annotations

from optimizer.policies.landscape import Margins
from optimizer.revenue import Targets, late_images, settled_images
from optimizer.telemetry import Window

_SLO_SHARE, _LEAST_SLO_SHARE, _MOST_SLO_SHARE = 0.97, 0.5, 1.1
_LATE_WANTED, _LATE_MEMORY = 0.006, 0.95
_MORE_CAUTION, _MOST_CORRECTION, _LESS_CAUTION = 0.006, 0.04, 0.004
_ENOUGH = 0.98
_MORE_OVERHEAD, _LESS_OVERHEAD = 0.25, 0.12
_MOST_OVERHEAD, _MOST_CREDIT = 0.5, 0.03


class Caution:
    """How much of the SLO is used: less after answers that were late unexpectedly, more while few are.

    An SLO of 99 per cent allows for some late answers. Where a setting was chosen because it just keeps the
    SLO, and fewer were late than may be, a little more of the SLO is used the next time; otherwise calm
    leads back to where it began, and no further.
    """

    def __init__(self) -> None:
        self._slo_share = _SLO_SHARE
        self._overhead_ms = 0.0
        self._late = self._answered = 0.0

    def margins(self, reserve_per_s: float) -> Margins:
        """Return what to keep free now; `reserve_per_s` is passed on."""
        return Margins(self._slo_share, self._overhead_ms, reserve_per_s)

    def count(self, window: Window) -> None:
        """Count the late answers of any window: whatever made them late, they are no longer allowed for."""
        self._late = _LATE_MEMORY * self._late + late_images(window.traffic)
        self._answered = _LATE_MEMORY * self._answered + settled_images(window.traffic)

    def observe(
        self,
        window: Window,
        targets: Targets,
        expected_p99_ms: float | None,
        *,
        surged: bool,
        slo_bound: bool,
    ) -> None:
        """Learn from a window at the setting that was decided on; nothing of one that surged.

        `slo_bound`: but for the SLO another setting would have been chosen.
        """
        if surged:
            return
        self._learn_share(window, targets, slo_bound=slo_bound)
        if expected_p99_ms is not None and window.traffic.queued <= 2 * window.point.batch_limit:
            self._learn_overhead(window, targets, expected_p99_ms)

    def _learn_share(self, window: Window, targets: Targets, *, slo_bound: bool) -> None:
        """Use more of the SLO where late answers are left and there is use for them; less where none are."""
        room = self._room(late_images(window.traffic) / max(1, settled_images(window.traffic)))
        off_the_edge = (window.traffic.latency_p99_ms or 0.0) < _ENOUGH * targets.slo_p99_ms
        if room < 0.0:
            less = min(_MOST_CORRECTION, -_MORE_CAUTION * room)
            self._slo_share = max(_LEAST_SLO_SHARE, self._slo_share - less)
        elif slo_bound and off_the_edge:
            self._slo_share = min(_MOST_SLO_SHARE, self._slo_share + _LESS_CAUTION * room)
        elif self._slo_share < _SLO_SHARE:
            self._slo_share = min(_SLO_SHARE, self._slo_share + _LESS_CAUTION * room)

    def _room(self, late_now: float) -> float:
        """Return the share of the allowed late answers that is left; negative where now too many are."""
        spent = self._late / max(1.0, self._answered)
        room = 1.0 - 0.5 * (late_now + min(spent, _LATE_WANTED)) / _LATE_WANTED
        return room if spent < _LATE_WANTED else min(0.0, room)

    def _learn_overhead(self, window: Window, targets: Targets, expected_p99_ms: float) -> None:
        """Learn what latency comes on top of the predicted one, e.g. that of the network."""
        if window.traffic.latency_p99_ms is None:
            return
        slo_ms = targets.slo_p99_ms
        excess_ms = window.traffic.latency_p99_ms - (expected_p99_ms - self._overhead_ms)
        wanted_ms = min(max(-_MOST_CREDIT * slo_ms, excess_ms), _MOST_OVERHEAD * slo_ms)
        weight = _MORE_OVERHEAD if wanted_ms > self._overhead_ms else _LESS_OVERHEAD
        self._overhead_ms += weight * (wanted_ms - self._overhead_ms)
