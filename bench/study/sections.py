"""What a report is made of, before it is known whether a browser or a terminal shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; `warning` when it must not be missed."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first `left` columns are words, the others figures. `brief`: for the terminal too."""

    caption: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 1
    brief: bool = True


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG element with its caption; the terminal shows none."""

    svg: str
    caption: str


Part = Text | Table | Drawing


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    heading: str
    parts: tuple[Part, ...]


NONE = "-"
_LARGE = 1000.0


def number(value: float | None, form: str = ".3g") -> str:
    """Write a figure, large ones without powers of ten; a dash where there is none."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.0f}" if abs(value) >= _LARGE else f"{value:{form}}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as a percentage; a dash where there is none."""
    return NONE if share is None or math.isnan(share) else f"{share:.{digits}%}"


def p_value(value: float | None) -> str:
    """Write a p-value; beyond a thousandth its size says nothing."""
    if value is None or math.isnan(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
