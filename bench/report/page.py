"""One HTML file that needs no other: sections of ready markup under a title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Args:
        heading: plain text.
        parts: markup as `bench.report.markup` and `bench.report.plot` make it, in order.
    """

    heading: str
    parts: tuple[str, ...]


def page(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """Return a whole HTML document.

    Args:
        title: plain text.
        sections: in order; two and more get a table of contents.
        lead: plain text under the title.
    """
    body = "\n".join(_section(index, section) for index, section in enumerate(sections))
    return _FRAME.format(
        title=escape(title),
        style=_STYLE,
        lead=f'<p class="lead">{escape(lead)}</p>' if lead else "",
        contents=_contents(sections) if len(sections) > 1 else "",
        body=body,
    )


def _contents(sections: Sequence[Section]) -> str:
    links = (f'<a href="#s{i}">{escape(section.heading)}</a>' for i, section in enumerate(sections))
    return f"<nav>{' · '.join(links)}</nav>"


def _section(index: int, section: Section) -> str:
    parts = "\n".join(section.parts)
    return f'<section id="s{index}">\n<h2>{escape(section.heading)}</h2>\n{parts}\n</section>'


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.25rem; margin-top: 2.2rem }
.lead { color: #555; margin-top: 0 } nav { margin: 1rem 0; font-size: .9rem } a { color: #0b5cad }
.scroll { overflow-x: auto; margin: .8rem 0 } table { border-collapse: collapse; font-size: .85rem }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #e3e3e3; white-space: nowrap;
  font-variant-numeric: tabular-nums }
th { text-align: left; border-bottom: 2px solid #999 } .right { text-align: right }
figure { display: inline-block; max-width: 100%; margin: .6rem 1rem .6rem 0; vertical-align: top }
figcaption { font-size: .85rem; color: #444; max-width: 40rem }
.note { background: #fff6dd; border-left: 4px solid #d99b00; padding: .4rem .8rem; margin: .6rem 0 }
svg { max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: #333 }
"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{lead}
{contents}
{body}
</body>
</html>
"""
