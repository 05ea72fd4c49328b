"""What the rivals read from a window and how they move on the grid, where they have it in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.evidence import LEAST_IMAGES, THROTTLED
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets
from optimizer.telemetry import Window


def why_ignored(window: Window) -> str | None:
    """Say why a window is to be ignored: another clock was in force, or too little ran; None when it is not.

    Throttling and idleness are no part of the published rules. All would take them for their own doing, so
    ignoring such windows favours them.
    """
    if throttled := window.device.event_reasons & THROTTLED:
        return f"the device was throttled ({throttled.name})"
    if window.device.clock_not_taken:
        return f"the clock is not the one asked for ({window.device.clock_not_taken})"
    traffic = window.traffic
    if traffic.completed < LEAST_IMAGES or window.duration_s <= 0.0:
        return f"only {traffic.completed} images to learn from, {LEAST_IMAGES} are needed"
    if busy_s(window) <= 0.0 or traffic.latency_p99_ms is None:
        return "no batch ended"
    return None


def place(grid: OperatingGrid, window: Window) -> OperatingPoint:
    """Return the setting that the window was measured under; the nearest legal one if it was not legal."""
    return without_clock_if_none(grid.nearest(window.point), window)


def without_clock_if_none(point: OperatingPoint, window: Window) -> OperatingPoint:
    """Return the point; without its clock while none can be set."""
    return replace(point, sm_clock_mhz=None) if window.point.sm_clock_mhz is None else point


def stay(grid: OperatingGrid, window: Window, why: str) -> Decision:
    """Return the decision to leave everything as it is."""
    return to(place(grid, window), why)


def to(point: OperatingPoint, why: str) -> Decision:
    """Return the decision for a point."""
    return Decision(point, f"{point}: {why}")


def shift(axis: Sequence[int], value: int, positions: int) -> int:
    """Return the value so many positions up (or down) an axis, within its ends. `value` is on it."""
    index = axis.index(value) + positions
    return axis[min(max(0, index), len(axis) - 1)]


def toward(axis: Sequence[int], value: int, wanted: float) -> int:
    """Return the value on the axis farthest on the way to `wanted`; the next one if none lies on the way."""
    if wanted > value:
        above = [other for other in axis if other > value]
        return max((other for other in above if other <= wanted), default=min(above, default=value))
    below = [other for other in axis if other < value]
    return min((other for other in below if other >= wanted), default=max(below, default=value))


def busy_s(window: Window) -> float:
    """Return the seconds in which batches ran."""
    return sum(times.total_s for times in window.traffic.batches.values() if times.count > 0)


def mean_power_w(window: Window) -> float | None:
    """Return the mean power, from the energy or else as the device reports it; None: unknown."""
    joules = window.device.energy.joules
    return window.device.power_w if joules is None else joules / window.duration_s


def highest_power_w(window: Window) -> float | None:
    """Return the highest power known of the window: its mean or the reading at its end. None: unknown."""
    known = [power for power in (mean_power_w(window), window.device.power_w) if power is not None]
    return max(known, default=None)


def power_cap_w(targets: Targets, board_limit_w: float | None, share: float = 1.0) -> float:
    """Return the cap of the targets, else a share of the board's limit, else infinity."""
    if targets.power_cap_w is not None:
        return targets.power_cap_w
    return math.inf if board_limit_w is None else share * board_limit_w
