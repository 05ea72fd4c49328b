"""What is left of a tournament: tables on the terminal, a markdown report, a JSON summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.serving.machine import Machine
from bench.tournament.plan import Cell, Plan
from bench.tournament.results import SIMULATED
from bench.tournament.summary import Summary
from bench.tournament.tables import TextTable, long_tables_of, tables_of

SUMMARY, REPORT = "summary.json", "report.md"
_COLOURS = {"reached": "green", "missed": "red"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the figures came about: the command, the plan, the machine, and the time that it took."""

    command: str
    plan: Plan
    machine: Machine
    wall_s: float
    simulated: int

    def sentences(self) -> Sequence[str]:
        """Return what a reader must know before the first figure."""
        plan, settings = self.plan, self.plan.settings
        axes = [dict.fromkeys(values) for values in zip(*map(_axes, plan.cells), strict=True)]
        kinds = "; ".join(", ".join(axis) for axis in axes)
        played = (
            f"{len(plan.cells)} cells ({kinds}) and {len(plan.policies)} policies, {settings.duration_s:g} s "
            f"of traffic each, a decision every {settings.interval_s:g} s, batches up to "
            f"{settings.max_batch}, seed {settings.seed}."
        )
        return (
            "All figures are simulated: the production queue, governor and policies on simulated GPUs.",
            played,
            f"Command: {self.command}",
            f"Machine: {self.machine}".replace("\n", "; "),
            f"{self.simulated} results were simulated in {self.wall_s:.0f} s, the others were there before.",
        )


def _axes(cell: Cell) -> tuple[str, str, str, str]:
    return cell.gpu_name, cell.model, cell.traffic, cell.slo


def show(summary: Summary, console: Console) -> None:
    """Print the tables, but for the long ones."""
    for table in tables_of(summary):
        console.print(_drawn(table))
        for note in table.notes:
            console.print(f"  {escape(note)}", style="dim", highlight=False)
    for warning in mixture(summary):
        console.print(f"{warning} To simulate anew: --fresh POLICY, or another --out.", style="yellow")


def mixture(summary: Summary) -> Sequence[str]:
    """Say so when the results were not all made by the same code; nothing otherwise."""
    if len(summary.codes) <= 1:
        return ()
    versions = ", ".join(summary.codes)
    return (f"The results come from {len(summary.codes)} versions of the code: {versions}.",)


def _drawn(table: TextTable) -> Table:
    drawn = Table(title=escape(table.title), title_justify="left", title_style="bold")
    for index, name in enumerate(table.header):
        drawn.add_column(name, justify="left" if index < table.text_columns else "right")
    for row in table.rows:
        drawn.add_row(*map(_coloured, row))
    return drawn


def _coloured(text: str) -> str:
    return f"[{_COLOURS[text]}]{text}[/]" if text in _COLOURS else escape(text)


def write(summary: Summary, conditions: Conditions, plots: Sequence[Path], folder: Path) -> tuple[Path, Path]:
    """Write the markdown report and the JSON summary; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    report, table = folder / REPORT, folder / SUMMARY
    report.write_text(as_markdown(summary, conditions, plots), encoding="utf-8")
    table.write_text(json.dumps(as_json(summary, conditions), indent=1) + "\n", encoding="utf-8")
    return report, table


def as_json(summary: Summary, conditions: Conditions) -> dict[str, Any]:
    """Return everything, as JSON has it. `source` says that it is simulated."""
    figures = [{**asdict(figure), "reached": figure.reached} for figure in summary.figures]
    return {
        "source": SIMULATED,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": conditions.command,
        "settings": asdict(conditions.plan.settings),
        "policies": list(conditions.plan.policies),
        "machine": asdict(conditions.machine),
        "wall_s": conditions.wall_s,
        **asdict(summary),
        "figures": figures,
    }


def as_markdown(summary: Summary, conditions: Conditions, plots: Sequence[Path]) -> str:
    """Return the report; plots are linked by their names, for they lie beside it."""
    parts = ["# Tournament (simulated)", *conditions.sentences()]
    parts += mixture(summary)
    parts += [_markdown(table) for table in tables_of(summary)]
    parts += [f"![{path.stem}, simulated]({path.name})" for path in plots]
    parts += [_markdown(table) for table in long_tables_of(summary)]
    return "\n\n".join(parts) + "\n"


def _markdown(table: TextTable) -> str:
    lines = [_row(table.header), _row(_rule(table)), *map(_row, table.rows)]
    return "\n\n".join([f"## {table.title}", "\n".join(lines), *table.notes])


def _rule(table: TextTable) -> Sequence[str]:
    return ["---" if index < table.text_columns else "---:" for index in range(len(table.header))]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"
