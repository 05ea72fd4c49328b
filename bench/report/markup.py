"""Pieces of a page: text goes in as it is and comes out escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def note(text: str) -> str:
    """Return a paragraph that must not be missed."""
    return f'<p class="note">{escape(text)}</p>'


def listing(items: Sequence[str]) -> str:
    """Return a list with bullets; nothing for no items."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>{lines}</ul>" if items else ""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", left: int = 1) -> str:
    """Return a table whose first `left` columns are aligned left, the others right."""
    sides = ["" if index < left else ' class="right"' for index in range(len(headings))]
    head = "".join(f"<th{side}>{escape(text)}</th>" for side, text in zip(sides, headings, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{side}>{escape(t)}</td>" for side, t in zip(sides, row, strict=True)) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figure(drawing: str, caption: str) -> str:
    """Return a drawing (markup, e.g. of `bench.report.plot.plot`) with its caption."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
