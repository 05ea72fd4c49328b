"""What a window proves: whether anything can be learned from it, and whether the SLO is in danger."""

from __future__ import annotations

import math
from typing import NamedTuple

from optimizer.models.machine import window_work
from optimizer.revenue import Targets, late_images, settled_images
from optimizer.telemetry import EventReason, Window

LEAST_IMAGES = 20
THROTTLED = (
    EventReason.HW_SLOWDOWN
    | EventReason.SW_THERMAL_SLOWDOWN
    | EventReason.HW_THERMAL_SLOWDOWN
    | EventReason.HW_POWER_BRAKE
)

_LATE_SHARE_ALLOWED = 0.01
_DEVIATIONS = 2.0
_MEMORY = 0.8
_LEAST_SINCE_S = 0.05


class Enough(NamedTuple):
    """How much is evidence: images that were answered, and batches that ended.

    A batch that runs past the end of a window makes its joules disagree with its images, by one in so many.
    """

    images: int = LEAST_IMAGES
    batches: int = 8


USUALLY = Enough()
_AT_FIRST, _IN_NEED = Enough(batches=1), Enough(1, 1)


def enough_of(*, begun: bool, missed: bool = False) -> Enough:
    """Return how much to wait for: little of the first window, and at a clock that is left at once."""
    return _IN_NEED if missed else USUALLY if begun else _AT_FIRST


def why_unfit(window: Window, *, settled: bool, enough: Enough = USUALLY) -> str | None:
    """Say why a window is no evidence about its setting; None when it is.

    Args:
        window: what was measured.
        settled: whether the clock was set before the window began, and no window came between.
        enough: so much must be in it.
    """
    throttled = window.device.event_reasons & THROTTLED
    if throttled:
        return f"the device was throttled ({throttled.name})"
    if window.device.clock_not_taken:
        return f"the clock is not the one asked for ({window.device.clock_not_taken})"
    if not settled:
        return "the clock was still settling"
    if window.traffic.completed < enough.images or window.duration_s <= 0.0:
        return f"only {window.traffic.completed} images to learn from, {enough.images} are needed"
    batches = sum([times.count for times in window.traffic.batches.values()])
    if batches < enough.batches:
        return f"only {batches} batches to learn from, {enough.batches} are needed"
    return None


class SloWatch:
    """Tells when more than one per cent of the images are surely late, or too many wait for the SLO."""

    def __init__(self) -> None:
        self._late = 0.0
        self._answered = 0.0

    def trouble(self, window: Window, targets: Targets, *, surged: bool = False) -> str | None:
        """Say how the SLO is in danger; None when it is not. What was said once is forgotten.

        Chance makes images late by the batch. `surged`: more came than expected, or the alarm was sounded;
        then late answers have a cause, and are not put down to chance.
        """
        traffic = window.traffic
        self._late = _MEMORY * self._late + late_images(traffic)
        self._answered = _MEMORY * self._answered + settled_images(traffic)
        if self._surely_too_late(window, surged=surged):
            late, answered = self._late, self._answered
            self._late = self._answered = 0.0
            return f"{late:.0f} of the last {answered:.0f} images late (SLO {targets.slo_p99_ms:g} ms)"
        return _backlog(window, targets)

    def _surely_too_late(self, window: Window, *, surged: bool) -> bool:
        allowed = _LATE_SHARE_ALLOWED * self._answered
        if self._late <= allowed:
            return False
        chance = math.sqrt(allowed * (1.0 if surged else window_work(window).batch))
        return self._late > allowed + _DEVIATIONS * chance + 1.0


def _backlog(window: Window, targets: Targets) -> str | None:
    queued, completed = window.traffic.queued, window.traffic.completed
    drain_ms = queued / completed * window.duration_s * 1e3 if completed else 0.0
    if drain_ms <= targets.slo_p99_ms or queued <= window.point.batch_limit:
        return None
    return f"{queued} images wait, {drain_ms:.0f} ms of work (SLO {targets.slo_p99_ms:g} ms)"


def latest_arrivals(window: Window) -> tuple[int, float]:
    """Return images that arrived in some seconds: since an alarm where that is more a second, else in all.

    A surge fills a part of the window in which it begins; its mean tells little of what comes.
    """
    arrived, duration_s, cut = window.traffic.arrived, window.duration_s, window.cut
    if cut is None:
        return arrived, duration_s
    since, since_s = arrived - cut.arrived, window.end_s - cut.at_s
    enough = since >= LEAST_IMAGES and since_s >= _LEAST_SINCE_S
    return (since, since_s) if enough and since * duration_s > arrived * since_s else (arrived, duration_s)


def clock_in_force_mhz(window: Window) -> int | None:
    """The measured clock where the power limit held it down, else the one that was set."""
    measured_mhz = window.device.sm_clock_mhz
    if window.point.sm_clock_mhz is None or EventReason.SW_POWER_CAP not in window.device.event_reasons:
        return window.point.sm_clock_mhz
    return measured_mhz or window.point.sm_clock_mhz


def out_of_hand(window: Window) -> bool:
    """Whether the device says that it, or somebody else, held another clock than was asked for."""
    return bool(window.device.event_reasons & THROTTLED or window.device.clock_not_taken)


def was_in_force(window: Window) -> bool:
    """Whether the device says that it ran as asked for, or as the power limit let it.

    Then even a first window is settled.
    """
    measured_mhz = window.device.sm_clock_mhz
    return measured_mhz is not None and measured_mhz == clock_in_force_mhz(window)
