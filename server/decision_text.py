"""A turn of the governor as one line that a person can read."""

from __future__ import annotations

from optimizer.governor import Record
from optimizer.revenue import late_images
from optimizer.telemetry import Energy


def decision_line(record: Record) -> str:
    """Say what was decided and why, and what the window before it measured."""
    return f"{_change(record)}: {record.decision.reason} | {window_text(record)}"


def window_text(record: Record) -> str:
    """Say what a window measured and earned; energy is named with its source, or said not to be measured."""
    window, traffic = record.window, record.window.traffic
    in_time = max(0, traffic.completed - traffic.late)
    parts = [
        f"last {window.duration_s:.1f} s: {in_time} images in time",
        f"{late_images(traffic)} late",
        f"{traffic.queued} queued",
    ]
    if traffic.latency_p99_ms is not None:
        parts.append(f"p99 {traffic.latency_p99_ms:.1f} ms")
    return ", ".join([*parts, energy_text(window.device.energy), _revenue(record)])


def energy_text(energy: Energy) -> str:
    """Say how many joules, and where the figure comes from."""
    return "energy not measured" if energy.joules is None else f"{energy.joules:.1f} J ({energy.source})"


def _change(record: Record) -> str:
    before, after = record.window.point, record.decision.point
    return f"keep {after}" if before == after else f"from {before} to {after}"


def _revenue(record: Record) -> str:
    per_hour = record.revenue.total * 3600.0 / max(record.window.duration_s, 1e-9)
    energy = " without energy" if record.revenue.excludes_energy else ""
    return f"revenue {_rounded(per_hour)} an hour{energy}"


def _rounded(amount: float) -> str:
    return f"{amount:.4g}"
