"""The tournament in pictures, all of which say that it is simulated. Needs the extra `tournament`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from bench.tournament.landscape import Landscape
from bench.tournament.plan import DEFAULT, OURS
from bench.tournament.results import Ground, Played, Series
from bench.tournament.score import LATE_SHARE_ALLOWED
from bench.tournament.standings import Line
from bench.tournament.summary import Summary

_DPI = 110
_LATE_FLOOR = 1e-4
_LEVELS = np.linspace(0.0, 1.0, 26)
"""Of the landscape, in shares of the oracle's revenue: settings that earn nothing are all the same."""
_HALF_STRIP = 0.5
_Strip = tuple[Sequence[float], NDArray[np.float64]]


def draw_all(
    summary: Summary, shown: Sequence[tuple[Ground, Sequence[Played], Landscape]], folder: Path
) -> list[Path]:
    """Draw everything into a folder; return the files.

    Args:
        summary: what is drawn over all cells.
        shown: cells that are drawn on their own, with their runs and the landscape.
        folder: exists.
    """
    paths = [
        _save(
            _by_traffic(summary.lines, "revenue over the best fixed setting's", _ratio),
            folder / "revenue.png",
        ),
        _save(
            _by_traffic(summary.lines, "joules an image over the default's", _energy), folder / "energy.png"
        ),
        _save(_late(summary.lines), folder / "late.png"),
    ]
    for ground, runs, landscape in shown:
        name = f"{ground.cell.slug}.png"
        paths.append(_save(_trajectories(ground, runs), folder / f"trajectory-{name}"))
        paths.append(_save(_landscape(ground, runs, landscape), folder / f"landscape-{name}"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI)
    return path


def _figure(title: str, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{title} (simulated)")
    return figure


# Over all cells


def _ratio(line: Line) -> float | None:
    return line.ratio


def _energy(line: Line) -> float | None:
    return None if line.saving is None else 1.0 - line.saving


def _by_traffic(lines: Sequence[Line], title: str, value: Callable[[Line], float | None]) -> Figure:
    """One group of dots a kind of traffic, one colour a policy: the mean, and lowest to highest cell."""
    figure = _figure(f"{title}: mean, lowest and highest cell", 11, 5)
    axes, traffics = figure.subplots(), list(dict.fromkeys(line.cell.traffic for line in lines))
    policies = list(dict.fromkeys(line.policy for line in lines))
    for index, policy in enumerate(policies):
        _dots(axes, traffics, [line for line in lines if line.policy == policy], value, index, len(policies))
    axes.axhline(1.0, color="grey", linewidth=0.8, zorder=0)
    axes.set_xticks(range(len(traffics)), traffics)
    _legend(figure, axes)
    return figure


def _dots(
    axes: Axes,
    traffics: Sequence[str],
    own: Sequence[Line],
    value: Callable[[Line], float | None],
    index: int,
    count: int,
) -> None:
    shift = (index - (count - 1) / 2.0) / (count + 1.0)
    label: str | None = own[0].policy
    for place, traffic in enumerate(traffics):
        found = [v for line in own if line.cell.traffic == traffic and (v := value(line)) is not None]
        if not found:
            continue
        middle = float(np.mean(found))
        spread = [[middle - min(found)], [max(found) - middle]]
        style = "D" if own[0].policy == OURS else "o"
        looks: dict[str, Any] = {"fmt": style, "color": _colour(index), "markersize": 5, "linewidth": 1}
        axes.errorbar(place + shift, middle, spread, label=label, **looks)
        label = None


def _late(lines: Sequence[Line]) -> Figure:
    """Every cell a dot, a row a policy."""
    figure = _figure("late share, every cell", 9, 4.5)
    axes, policies = figure.subplots(), list(dict.fromkeys(line.policy for line in lines))
    for index, policy in enumerate(policies):
        shares = [max(_LATE_FLOOR, line.late_share) for line in lines if line.policy == policy]
        jitter = np.linspace(-0.25, 0.25, len(shares)) if len(shares) > 1 else np.zeros(1)
        axes.plot(shares, index + jitter, "o", markersize=4, alpha=0.6, color=_colour(index))
    axes.axvline(LATE_SHARE_ALLOWED, color="red", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel(f"late images over all that arrived; {_LATE_FLOOR:g} stands for less")
    axes.set_yticks(range(len(policies)), policies)
    axes.invert_yaxis()
    return figure


# One cell


def _trajectories(ground: Ground, runs: Sequence[Played]) -> Figure:
    figure = _figure(str(ground.cell), 11, 8)
    traffic, revenue, batch, clock = figure.subplots(4, 1, sharex=True)
    first = runs[0].series
    traffic.plot(first.end_s, np.array(first.arrived) / _lengths(first), color="black", linewidth=0.8)
    traffic.set_ylabel("images/s arriving")
    for index, run in enumerate(runs):
        _walk(run, index, revenue, batch, clock)
    _batch_axis(batch)
    revenue.set_ylabel("revenue\n(10 s mean)")
    batch.set_ylabel("batch limit")
    clock.set_ylabel("SM clock, MHz")
    clock.set_xlabel("simulated time, s")
    _legend(figure, batch)
    return figure


def _walk(run: Played, index: int, revenue: Axes, batch: Axes, clock: Axes) -> None:
    series, colour = run.series, _colour(index)
    width = 2.0 if run.policy == OURS else 0.9
    order = 3 if run.policy == OURS else 2
    style: dict[str, Any] = {"color": colour, "linewidth": width, "zorder": order}
    times = series.end_s
    revenue.plot(times, _smooth(np.array(series.revenue) / _lengths(series)), **style)
    batch.step(times, series.batch_limit, label=run.policy, **style)
    clock.step(times, _clocks(series), **style)


def _landscape(ground: Ground, runs: Sequence[Played], landscape: Landscape) -> Figure:
    """Contours of the revenue of fixed settings; on them where our policy was, and for how long."""
    figure = _figure(f"{ground.cell}: revenue of fixed settings, and the path of {OURS}", 9, 6.5)
    axes = figure.subplots()
    values = np.minimum(np.array(landscape.ratios), _LEVELS[-1])
    across, values = _strip(landscape.sm_clocks_mhz, values, 1)
    up, values = _strip(landscape.batch_limits, values, 0)
    drawn = axes.contourf(across, up, values, levels=_LEVELS, cmap="viridis", extend="min")
    figure.colorbar(drawn, label="revenue over the best fixed setting's")
    for run in runs:
        if run.policy == OURS:
            _path(axes, run.series)
    marked = ((ground.default, "s", DEFAULT), (ground.oracle, "*", "best fixed setting"))
    for fixed, marker, name in marked:
        at = (fixed.point.sm_clock_mhz or 0, fixed.point.batch_limit)
        axes.plot(*at, marker, color="red", markersize=12, label=name, markeredgecolor="white")
    _batch_axis(axes)
    axes.set_xlabel("SM clock, MHz")
    axes.set_ylabel("batch limit")
    axes.legend(loc="lower left")
    return figure


def _strip(places: Sequence[float], values: NDArray[np.float64], axis: int) -> _Strip:
    """Make a strip of a single clock or batch limit, as contours need two of each."""
    if len(places) > 1:
        return places, values
    return (places[0] - _HALF_STRIP, places[0] + _HALF_STRIP), np.repeat(values, 2, axis)


def _path(axes: Axes, series: Series) -> None:
    places = list(zip(_clocks(series), series.batch_limit, strict=True))
    stays = [(place, len(list(group))) for place, group in groupby(places)]
    clocks, limits = zip(*(place for place, _ in stays), strict=True)
    sizes = [12.0 + 120.0 * length / len(places) for _, length in stays]
    axes.plot(clocks, limits, color="white", linewidth=0.7, alpha=0.7)
    looks: dict[str, Any] = {"color": "white", "edgecolors": "black", "linewidths": 0.5, "zorder": 3}
    axes.scatter(clocks, limits, sizes, label=OURS, **looks)


def _batch_axis(axes: Axes) -> None:
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))


def _clocks(series: Series) -> list[float]:
    """A clock that could not be set is a gap."""
    return [float("nan") if clock is None else float(clock) for clock in series.sm_clock_mhz]


def _lengths(series: Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    lengths = np.diff(np.array(series.end_s), prepend=0.0)
    return np.where(lengths > 0.0, lengths, 1.0)


def _smooth(values: np.ndarray[tuple[int], np.dtype[np.float64]], windows: int = 10) -> Sequence[float]:
    """The mean of the last windows: a single one carries the chance of its arrivals."""
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    return [
        float(sums[end] - sums[max(0, end - windows)]) / min(end, windows)
        for end in range(1, len(values) + 1)
    ]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")


def _colour(index: int) -> str:
    return f"C{index}" if index < 10 else "black"
