"""Sections of a report for the browser and for the terminal, and their figures as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from bench.report import markup
from bench.report.page import Section as PageSection
from bench.report.page import page
from bench.study.sections import Drawing, Part, Section, Table, Text


def as_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return one HTML document that needs no other file."""
    parts = [PageSection(one.heading, tuple(_markup(part) for part in one.parts)) for one in sections]
    return page(title, parts, lead)


def show(console: Console, sections: Sequence[Section]) -> None:
    """Print what is brief enough for a terminal."""
    for section in sections:
        parts = [part for part in section.parts if _fits_terminal(part)]
        if parts:
            console.print(f"\n{section.heading}", style="bold", markup=False, highlight=False)
        for part in parts:
            _print(console, part)


def write_json(path: Path, report: object) -> None:
    """Write a report; what is no number in JSON (an interval that could not be had) becomes null."""
    path.write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _markup(part: Part) -> str:
    if isinstance(part, Text):
        return markup.note(part.text) if part.warning else markup.paragraph(part.text)
    if isinstance(part, Table):
        return markup.table(part.headings, part.rows, part.caption, part.left)
    return markup.figure(part.svg, part.caption)


def _fits_terminal(part: Part) -> bool:
    return not isinstance(part, Drawing) and (isinstance(part, Text) or part.brief)


def _print(console: Console, part: Part) -> None:
    if isinstance(part, Text):
        console.print(part.text, style="yellow" if part.warning else "", markup=False, highlight=False)
    elif isinstance(part, Table):
        console.print(_rich(part))


def _rich(table: Table) -> RichTable:
    drawn = RichTable(title=table.caption or None, title_justify="left", box=None, pad_edge=False)
    for index, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="left" if index < table.left else "right")
    for row in table.rows:
        drawn.add_row(*(cell.replace("[", r"\[") for cell in row))
    return drawn


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a report holds
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.value if isinstance(value, Enum) else value
