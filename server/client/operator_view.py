"""The governor as a picture of characters: what holds now, how it went, and the last decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from protos import boulton_pb2 as pb
from server.client.operator import point_of, status_line
from server.logs import escape

HISTORY = 60
LAST_DECISIONS = 5
BARS = "▁▂▃▄▅▆▇█"


class OperatorView:
    """What `boulton watch` shows. Holds the latest decisions.

    Args:
        status: the governor now.
        decisions: those before, oldest first.
    """

    def __init__(self, status: pb.Status, decisions: Iterable[pb.Decision]) -> None:
        self._status = status
        self._decisions: deque[pb.Decision] = deque(decisions, HISTORY)

    def add(self, decision: pb.Decision, status: pb.Status) -> None:
        """Take in the next decision."""
        self._decisions.append(decision)
        self._status = status

    def render(self) -> RenderableType:
        """Draw everything; safe against whatever text the server sends."""
        parts: list[RenderableType] = [_text(status_line(self._status))]
        if self._decisions:
            parts += [self._figures(self._decisions[-1]), self._courses(), self._reasons()]
        return Panel(Group(*parts), title="boulton watch", title_align="left")

    def _figures(self, last: pb.Decision) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        table.add_row("setting", _text(str(point_of(last.window.point))))
        table.add_row("revenue", _text(revenue_text(last)))
        table.add_row("latency", _text(latency_text(last.window, self._status.targets.slo_p99_ms)))
        table.add_row("power", _text(power_text(last.window)))
        table.add_row("images", _text(images_text(last.window)))
        if last.HasField("infeasible"):
            table.add_row("targets", _text(f"cannot be kept: {last.infeasible}"))
        return table

    def _courses(self) -> RenderableType:
        points = [decision.window.point for decision in self._decisions]
        table = Table.grid(padding=(0, 3))
        limits = [point.batch_limit for point in points]
        table.add_row("batch", sparkline(limits, self._status.batch_limits), f"{limits[-1]}")
        if self._status.sm_clocks_mhz:
            clocks = [point.sm_clock_mhz for point in points]
            table.add_row("clock", sparkline(clocks, self._status.sm_clocks_mhz), f"{clocks[-1]} MHz")
        return table

    def _reasons(self) -> RenderableType:
        latest = list(self._decisions)[-LAST_DECISIONS:]
        return Group(*(_text(decision.reason) for decision in reversed(latest)))


def sparkline(values: Sequence[float], scale: Sequence[float]) -> str:
    """Draw values as bars between the least and the greatest of a scale."""
    low, high = min(scale, default=0.0), max(scale, default=0.0)
    span = max(high - low, 1e-9)
    shares = (min(1.0, max(0.0, (value - low) / span)) for value in values)
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)


def revenue_text(decision: pb.Decision) -> str:
    """Revenue of the last window by the hour, or its score under another form; without energy, it says so."""
    revenue = decision.revenue
    without = "" if revenue.HasField("energy_cost") else " without energy"
    if revenue.form not in ("", "profit"):
        return f"{revenue.form} {revenue.total:.4g}{without}"
    return f"{revenue.total * 3600.0 / max(decision.window.duration_s, 1e-9):.4g} an hour{without}"


def latency_text(window: pb.Window, slo_ms: float) -> str:
    """The p99 of the last window against the SLO."""
    measured = (
        f"p99 {window.latency_p99_ms:.1f} ms" if window.HasField("latency_p99_ms") else "nothing answered"
    )
    return f"{measured} (SLO {slo_ms:g} ms)"


def power_text(window: pb.Window) -> str:
    """Mean power of the last window with its source."""
    if not window.HasField("energy_j"):
        return "not measured"
    return f"{window.energy_j / max(window.duration_s, 1e-9):.1f} W ({window.energy_source})"


def images_text(window: pb.Window) -> str:
    """Images of the last window."""
    late = window.late + window.refused + window.expired
    return f"{window.arrived} arrived, {window.completed} answered, {late} late, {window.queued} waiting"


def _text(line: str) -> Text:
    return Text(escape(line), overflow="ellipsis", no_wrap=True)
