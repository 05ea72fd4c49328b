"""A turn of the governor as one line that a person can read."""

from __future__ import annotations

from optimizer.governor import Record
from optimizer.revenue import late_images
from optimizer.telemetry import Energy


def decision_line(record: Record) -> str:
    """Say what was decided and why, and what the window before it measured."""
    point, reason = str(record.decision.point), record.decision.reason
    decided = reason if reason.startswith(point) else f"{point}: {reason}"
    return f"{decided} | {window_text(record)}"


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
    per_hour = record.revenue.total * 3600.0 / max(record.window.duration_s, 1e-9)
    without = " without energy" if record.revenue.excludes_energy else ""
    return f"revenue {per_hour:.4g} an hour{without}"
