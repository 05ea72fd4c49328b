"""What a benchmark found: figures against their targets, as a table for people and JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.neighbours import Looks
from bench.serving.machine import Machine
from bench.serving.rounds import Spread

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the result.

    Args:
        name: what was measured, for a person.
        value: the spread over the rounds.
        unit: e.g. `requests/s`, or `x` for a ratio.
        at_least: the target from below, if there is one.
        at_most: the target from above, if there is one.
    """

    name: str
    value: Spread
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median meets its target; None when there is none."""
        if self.at_least is not None:
            return self.value.median >= self.at_least
        return None if self.at_most is None else self.value.median <= self.at_most

    @property
    def target(self) -> str:
        """The target as a person would write it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome. `conditions` says how it was measured, `notes` what went otherwise."""

    benchmark: str
    title: str
    figures: Sequence[Figure]
    conditions: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def missed(self) -> list[str]:
        """Names of the figures that did not reach their targets."""
        return [figure.name for figure in self.figures if figure.reached is False]


def show(result: Result, console: Console) -> None:
    """Print the result as a table."""
    table = Table(title=result.title, title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("median (lowest .. highest round)", justify="right")
    table.add_column("")
    table.add_column("target", justify="right")
    table.add_column("")
    for figure in result.figures:
        table.add_row(figure.name, str(figure.value), figure.unit, figure.target, _mark(figure))
    console.print(table)
    for line in (*result.conditions, *result.notes):
        console.print(f"  {line}", style="dim", highlight=False)


def _mark(figure: Figure) -> str:
    return {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[figure.reached]


def save(results: Sequence[Result], machine: Machine, looks: Looks, directory: Path = RESULTS) -> Path:
    """Write everything as JSON into `directory`; return the file. `looks` tells of neighbours meanwhile."""
    now = datetime.now(UTC)
    document = {
        "measured_at": now.isoformat(timespec="seconds"),
        "machine": asdict(machine),
        "disturbed_by_neighbours": looks.disturbed,
        "results": [_document(result) for result in results],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"serving-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def _document(result: Result) -> dict[str, object]:
    figures = [{**asdict(figure), "reached": figure.reached} for figure in result.figures]
    return {**asdict(result), "figures": figures}
