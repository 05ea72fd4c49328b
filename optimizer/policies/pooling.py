"""Windows of few images or batches, put together until they are evidence: slow networks, little traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optimizer.policies.evidence import LEAST_IMAGES, USUALLY, Enough, why_unfit
from optimizer.telemetry import (
    NOT_MEASURED,
    BatchTimes,
    DeviceReading,
    Energy,
    Traffic,
    Window,
)


class Pool:
    """Keeps what windows measured that had too few images or batches each to tell anything.

    Windows go together while one follows the other at one clock, all with a delay or all without, from one
    on in which images were answered. What else makes a window unfit ends the pool: a clock that settles, or
    that the device holds down.
    """

    def __init__(self) -> None:
        self._pooled: Window | None = None

    @property
    def collects(self) -> bool:
        """Whether more is needed until the windows of late are evidence."""
        return self._pooled is not None

    def add(self, window: Window, *, settled: bool, enough: Enough = USUALLY) -> Window:
        """Return this window together with those before it that had not enough.

        Args:
            window: what was measured.
            settled: as for `why_unfit`.
            enough: so much is evidence.
        """
        before, self._pooled = self._pooled, None
        if why_unfit(replace(window, traffic=_ENOUGH), settled=settled) is not None:
            return window
        together = _joined(before, window) if before is not None and _goes_with(before, window) else window
        unfit = why_unfit(together, settled=settled, enough=enough)
        if unfit is not None and together.traffic.completed:
            self._pooled = together
        return together


_ENOUGH = Traffic(completed=LEAST_IMAGES, batches={1: BatchTimes(LEAST_IMAGES, 1.0)})
"""Images enough for anything: what still makes a window unfit is its clock."""


def _goes_with(before: Window, window: Window) -> bool:
    was, now = before.point, window.point
    alike = was.sm_clock_mhz == now.sm_clock_mhz and (was.max_delay_ms > 0.0) == (now.max_delay_ms > 0.0)
    return alike and before.end_s == window.start_s


def _joined(before: Window, window: Window) -> Window:
    """Both in one, under the point of the later."""
    return replace(
        window,
        start_s=before.start_s,
        traffic=_traffic(before.traffic, window.traffic),
        device=_device(before.device, window.device),
    )


def _traffic(before: Traffic, now: Traffic) -> Traffic:
    """Add up. The median is the mean of both; of so few images the higher percentiles are the highest."""
    return Traffic(
        arrived=before.arrived + now.arrived,
        completed=before.completed + now.completed,
        late=before.late + now.late,
        refused=before.refused + now.refused,
        expired=before.expired + now.expired,
        cancelled=before.cancelled + now.cancelled,
        failed=before.failed + now.failed,
        queued=now.queued,
        latency_p50_ms=_median_ms(before, now),
        latency_p95_ms=_highest_ms(before.latency_p95_ms, now.latency_p95_ms),
        latency_p99_ms=_highest_ms(before.latency_p99_ms, now.latency_p99_ms),
        batches=_batches(before.batches, now.batches),
        requests=before.requests + now.requests,
        together=before.together + now.together,
        largest_request=max(before.largest_request, now.largest_request),
    )


def _median_ms(before: Traffic, now: Traffic) -> float | None:
    if before.latency_p50_ms is None or now.latency_p50_ms is None or not now.completed:
        return now.latency_p50_ms if before.latency_p50_ms is None else before.latency_p50_ms
    total_ms = before.latency_p50_ms * before.completed + now.latency_p50_ms * now.completed
    return total_ms / (before.completed + now.completed)


def _highest_ms(before_ms: float | None, now_ms: float | None) -> float | None:
    return max((ms for ms in (before_ms, now_ms) if ms is not None), default=None)


def _batches(before: Mapping[int, BatchTimes], now: Mapping[int, BatchTimes]) -> dict[int, BatchTimes]:
    sums = dict(before)
    for size, times in now.items():
        sums[size] = sums.get(size, BatchTimes(0, 0.0)) + times
    return sums


def _device(before: DeviceReading, now: DeviceReading) -> DeviceReading:
    """The readings of the later, with the energy of both where both measured it."""
    first_j, then_j = before.energy.joules, now.energy.joules
    measured = first_j is not None and then_j is not None and before.energy.source == now.energy.source
    energy = Energy((first_j or 0.0) + (then_j or 0.0), now.energy.source) if measured else NOT_MEASURED
    return replace(now, energy=energy, event_reasons=before.event_reasons | now.event_reasons)
