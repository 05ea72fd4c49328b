"""Line plots and scatter plots as SVG: points with intervals, a legend, and a tip under the mouse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.report.scale import Scale, scale_of

# Okabe and Ito's colours, which colour-blind readers can tell apart; further series have hollow dots.
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
        from_zero: without `log`, begin at 0 even if no value is near.
    """

    label: str
    log: bool = False
    marks: tuple[float, ...] = ()
    from_zero: bool = True


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
        name: for the legend; series of the same name share a look and an entry.
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
    across = scale_of((p.x for p in points), _LEFT, _WIDTH - _RIGHT, log=x.log, from_zero=x.from_zero)
    edges = (v for p in points for v in (p.y, p.low, p.high) if v is not None)
    up = scale_of(edges, _HEIGHT - _BOTTOM, _TOP, log=y.log, from_zero=y.from_zero)
    looks = _looks(series)
    height = _HEIGHT + _LEGEND_LINE * ((len(looks) + 1) // 2)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    parts = [
        f'{head} viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-weight="600">{escape(title)}</text>',
        *_grid(x, across, y, up),
        *(part for one in series for part in _drawn(one, looks[one.name], across, up)),
        *_legend(looks),
        "</svg>",
    ]
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    hollow: bool

    @property
    def dot(self) -> str:
        fill = "#fff" if self.hollow else self.colour
        return f'fill="{fill}" stroke="{self.colour}" stroke-width="1.4"'

    @property
    def line(self) -> str:
        dashes = ' stroke-dasharray="5 3"' if self.hollow else ""
        return f'fill="none" stroke="{self.colour}" stroke-width="1.6"{dashes}'


def _looks(series: Sequence[Series]) -> dict[str, _Look]:
    names = dict.fromkeys(one.name for one in series)
    count = len(COLOURS)
    return {name: _Look(COLOURS[i % count], i // count % 2 == 1) for i, name in enumerate(names)}


def _grid(x: Axis, across: Scale, y: Axis, up: Scale) -> Iterator[str]:
    for value in x.marks or across.marks():
        at = across.place(value)
        yield _line(at, _TOP, at, _HEIGHT - _BOTTOM, "#e6e6e6")
        yield _text(at, _HEIGHT - _BOTTOM + 16, _number(value), "middle")
    for value in y.marks or up.marks():
        at = up.place(value)
        yield _line(_LEFT, at, _WIDTH - _RIGHT, at, "#e6e6e6")
        yield _text(_LEFT - 6, at + 4, _number(value), "end")
    yield _line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "#666")
    yield _line(_LEFT, _TOP, _LEFT, _HEIGHT - _BOTTOM, "#666")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x.label, "middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield (
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
        f"{escape(y.label)}</text>"
    )


def _drawn(series: Series, look: _Look, across: Scale, up: Scale) -> Iterator[str]:
    shown = [p for p in series.points if (p.x > 0 or not across.log) and (p.y > 0 or not up.log)]
    if series.line and len(shown) > 1:
        path = " ".join(f"{across.place(p.x):.1f},{up.place(p.y):.1f}" for p in shown)
        yield f'<polyline points="{path}" {look.line}/>'
    for point in shown if series.dots else ():
        yield from _dot(point, look, across.place(point.x), up)


def _dot(point: Point, look: _Look, x: float, up: Scale) -> Iterator[str]:
    if point.low is not None and point.high is not None and (point.low > 0 or not up.log):
        yield _line(x, up.place(point.low), x, up.place(point.high), look.colour)
    tip = f"<title>{escape(point.tip)}</title>" if point.tip else ""
    yield f'<circle cx="{x:.1f}" cy="{up.place(point.y):.1f}" r="3.4" {look.dot}>{tip}</circle>'


def _legend(looks: dict[str, _Look]) -> Iterator[str]:
    for index, (name, look) in enumerate(looks.items()):
        x, y = _LEFT + index % 2 * (_WIDTH - _LEFT) / 2, _HEIGHT + 8 + _LEGEND_LINE * (index // 2)
        yield f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="4.2" {look.dot}/>'
        yield _text(x + 9, y, name, "start")


def _number(value: float) -> str:
    """Thousands apart by a thin space, never in powers of ten."""
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) >= 1000 else f"{value:.4g}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
