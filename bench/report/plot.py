"""Line plots and scatter plots as SVG: points with intervals, a legend, and a tip under the mouse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.report.scale import Scale, scale_of

# Okabe and Ito's colours, which colour-blind readers can tell apart, then the same once more.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 380, 66, 14, 34, 46
_LEGEND_LINE = 18


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows.

    Args:
        label: with the unit.
        log: equal ratios equally far apart; values of 0 and below are left out.
        marks: values to mark; (): round ones.
    """

    label: str
    log: bool = False
    marks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """One place; `low` to `high` is the interval of `y` where there is one. `tip` shows under the mouse."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour.

    Args:
        name: for the legend; series of the same name share a colour and an entry.
        points: in the order of the line.
        line: whether they are joined.
        dots: whether they are drawn as dots.
    """

    name: str
    points: tuple[Point, ...]
    line: bool = True
    dots: bool = True


def plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Draw the series; the legend lies under the axes."""
    points = [point for one in series for point in one.points]
    across = scale_of((p.x for p in points), _LEFT, _WIDTH - _RIGHT, log=x.log)
    edges = (v for p in points for v in (p.y, p.low, p.high) if v is not None)
    up = scale_of(edges, _HEIGHT - _BOTTOM, _TOP, log=y.log)
    colours = _colours(series)
    height = _HEIGHT + _LEGEND_LINE * ((len(colours) + 1) // 2)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    parts = [
        f'{head} viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-weight="600">{escape(title)}</text>',
        *_grid(x, across, y, up),
        *(part for one in series for part in _drawn(one, colours[one.name], across, up)),
        *_legend(colours),
        "</svg>",
    ]
    return "\n".join(parts)


def _colours(series: Sequence[Series]) -> dict[str, str]:
    names = dict.fromkeys(one.name for one in series)
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def _grid(x: Axis, across: Scale, y: Axis, up: Scale) -> Iterator[str]:
    for value in x.marks or across.marks():
        at = across.place(value)
        yield _line(at, _TOP, at, _HEIGHT - _BOTTOM, "#e6e6e6")
        yield _text(at, _HEIGHT - _BOTTOM + 16, f"{value:g}", "middle")
    for value in y.marks or up.marks():
        at = up.place(value)
        yield _line(_LEFT, at, _WIDTH - _RIGHT, at, "#e6e6e6")
        yield _text(_LEFT - 6, at + 4, f"{value:.4g}", "end")
    yield _line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "#666")
    yield _line(_LEFT, _TOP, _LEFT, _HEIGHT - _BOTTOM, "#666")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x.label, "middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield (
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
        f"{escape(y.label)}</text>"
    )


def _drawn(series: Series, colour: str, across: Scale, up: Scale) -> Iterator[str]:
    shown = [p for p in series.points if (p.x > 0 or not across.log) and (p.y > 0 or not up.log)]
    if series.line and len(shown) > 1:
        path = " ".join(f"{across.place(p.x):.1f},{up.place(p.y):.1f}" for p in shown)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    for point in shown if series.dots else ():
        yield from _dot(point, colour, across.place(point.x), up)


def _dot(point: Point, colour: str, x: float, up: Scale) -> Iterator[str]:
    if point.low is not None and point.high is not None and (point.low > 0 or not up.log):
        yield _line(x, up.place(point.low), x, up.place(point.high), colour)
    tip = f"<title>{escape(point.tip)}</title>" if point.tip else ""
    yield f'<circle cx="{x:.1f}" cy="{up.place(point.y):.1f}" r="3.6" fill="{colour}">{tip}</circle>'


def _legend(colours: dict[str, str]) -> Iterator[str]:
    for index, (name, colour) in enumerate(colours.items()):
        x, y = _LEFT + index % 2 * (_WIDTH - _LEFT) / 2, _HEIGHT + 8 + _LEGEND_LINE * (index // 2)
        yield f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="4.5" fill="{colour}"/>'
        yield _text(x + 9, y, name, "start")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
