"""A turn of the governor as one line that a person can read."""

from __future__ import annotations

from optimizer.governor import Record
from optimizer.operating_point import OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.revenue import late_images
from optimizer.telemetry import Energy


def decision_line(record: Record, pinned: OperatingPoint | None = None) -> str:
    """Say what was decided and why, what stands in its way, and what the window before it measured."""
    decision = record.decision
    point, reason = str(decision.point), decision.reason
    decided = reason if reason.startswith(point) else f"{point}: {reason}"
    if record.held_back:
        decided = f"the default setting is held for comparison; else {decided}"
    if pinned is not None:
        decided = f"{pinned}: pinned by the operator; else {decided}"
    return " | ".join([decided, *_warnings(decision), window_text(record)])


def _warnings(decision: Decision) -> list[str]:
    parts = [] if decision.infeasible is None else [f"targets cannot be kept: {decision.infeasible}"]
    if decision.alarm is not None:
        alarm = decision.alarm
        parts.append(f"alarm: {alarm.wire}, {alarm.refuge}")
    return parts


def window_text(record: Record) -> str:
    """Say what a window measured and earned; energy is named with its source, or said not to be measured."""
    window, traffic = record.window, record.window.traffic
    in_time = max(0, traffic.completed - traffic.late)
    parts = [
        f"last {window.duration_s:.1f} s at {window.point}: {in_time} images in time",
        f"{late_images(traffic)} late",
        f"{traffic.queued} queued",
    ]
    if traffic.latency_p99_ms is not None:
        parts.append(f"p99 {traffic.latency_p99_ms:.1f} ms")
    return ", ".join([*parts, energy_text(window.device.energy), _revenue(record)])


def energy_text(energy: Energy) -> str:
    """Say how many joules, and where the figure comes from."""
    return "energy not measured" if energy.joules is None else f"{energy.joules:.1f} J ({energy.source})"


def _revenue(record: Record) -> str:
    revenue = record.revenue
    without = " without energy" if revenue.excludes_energy else ""
    if revenue.form != "profit":
        return f"{revenue.form} {revenue.total:.4g}{without}"
    per_hour = revenue.total * 3600.0 / max(record.window.duration_s, 1e-9)
    return f"revenue {per_hour:.4g} an hour{without}"
