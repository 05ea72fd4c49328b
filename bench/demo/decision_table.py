"""The governor's decisions as a table that grows by a line a second."""

from __future__ import annotations

from bench.demo.stage import Kind, Stage
from protos import boulton_pb2

_COLUMNS = (
    ("second", 6),
    ("images/s", 9),
    ("p99 ms", 8),
    ("late", 5),
    ("queued", 7),
    ("batch limit", 12),
    ("SM clock MHz", 14),
    ("watts", 7),
    ("revenue/h", 10),
)
MOVES = "->"


class DecisionTable:
    """Prints a heading, then each decision with what the window before it measured."""

    def __init__(self, stage: Stage, kind: Kind) -> None:
        self._stage = stage
        self._seconds = 0.0
        stage.row(f"{kind} a line for each decision; {MOVES} marks a move")
        stage.row(" ".join(name.rjust(width) for name, width in _COLUMNS))

    def show(self, decision: boulton_pb2.Decision) -> None:
        """Print one line."""
        self._seconds += decision.window.duration_s
        cells = self._cells(decision)
        line = " ".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        self._stage.row(line, changed=MOVES in line)

    def _cells(self, decision: boulton_pb2.Decision) -> tuple[str, ...]:
        window, after = decision.window, decision.point
        before = window.point
        late = window.late + window.refused + window.expired
        per_hour = 3600 * decision.revenue.total / max(window.duration_s, 1e-9)
        return (
            f"{self._seconds:.0f}",
            f"{window.arrived / max(window.duration_s, 1e-9):.0f}",
            f"{window.latency_p99_ms:.1f}" if window.HasField("latency_p99_ms") else "-",
            f"{late}",
            f"{window.queued}",
            _move(before.batch_limit, after.batch_limit),
            _move(before.sm_clock_mhz, after.sm_clock_mhz) if before.HasField("sm_clock_mhz") else "-",
            _watts(window),
            f"{per_hour:.3f}",
        )


def _watts(window: boulton_pb2.Window) -> str:
    """Mean power of the window; the sensor's own reading is of one moment."""
    return f"{window.energy_j / window.duration_s:.0f}" if window.HasField("energy_j") else "-"


def _move(before: int, after: int) -> str:
    return f"{before}" if before == after else f"{before} {MOVES} {after}"
