"""What trials come to: decisions and losses of both starts, their ratio, and what a wrong prior costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.warm_start.trials import RIGHT, Pace, Trial

AT_MOST = 0.5
"""The ratio of decisions, warm over cold, that is to be reached."""
NOTEWORTHY = 2
"""From so many decisions on a cold start leaves something to save: below, there is nothing to halve."""
LATE_MORE = 0.01
FINAL_LESS = 0.01


def summary(trials: Sequence[Trial], paces: Sequence[Pace], windows: int) -> dict[str, Any]:
    """Return figures by kind of prior. A run that never settled counts as if it had needed all `windows`."""
    names = list(dict.fromkeys(trial.prior for trial in trials))
    return {
        name: {
            **_of_paces([pace for pace in paces if pace.prior == name], windows),
            **_of_trials([trial for trial in trials if trial.prior == name], windows),
        }
        for name in names
    }


def _of_paces(paces: Sequence[Pace], windows: int) -> dict[str, Any]:
    slow = [pace for pace in paces if _count(pace.cold_in_force, windows) >= NOTEWORTHY]
    return {
        "in_force": _compared([(one.cold_in_force, one.warm_in_force) for one in paces], windows),
        "in_force_where_cold_needs_two": _compared(
            [(one.cold_in_force, one.warm_in_force) for one in slow], windows
        ),
        "whole_windows": _compared([(one.cold, one.warm) for one in paces], windows),
    }


def _of_trials(trials: Sequence[Trial], windows: int) -> dict[str, Any]:
    slow = [trial for trial in trials if _count(trial.cold.decisions, windows) >= NOTEWORTHY]
    late = [trial.warm.late_share - trial.cold.late_share for trial in trials]
    finals = [
        trial.warm.final_per_s / trial.cold.final_per_s for trial in trials if trial.cold.final_per_s > 0.0
    ]
    return {
        "trials": len(trials),
        "decisions": _compared([(t.cold.decisions, t.warm.decisions) for t in trials], windows),
        "decisions_where_cold_needs_two": _compared(
            [(t.cold.decisions, t.warm.decisions) for t in slow], windows
        ),
        "sustained": _compared([(t.cold.sustained, t.warm.sustained) for t in trials], windows),
        "lost_s": _means([t.cold.lost_s for t in trials], [t.warm.lost_s for t in trials]),
        "late_share": _means([t.cold.late_share for t in trials], [t.warm.late_share for t in trials]),
        "late_share_most_more": max(late),
        "cells_later_by_more_than_1_percent": sum(more > LATE_MORE for more in late),
        "final_rate_warm_over_cold": fmean(finals) if finals else None,
        "final_rate_lowest": min(finals, default=None),
        "cells_that_end_lower_by_more_than_1_percent": sum(one < 1.0 - FINAL_LESS for one in finals),
    }


def _count(decisions: int | None, windows: int) -> int:
    return windows if decisions is None else decisions


def _compared(pairs: Sequence[tuple[int | None, int | None]], windows: int) -> dict[str, Any]:
    cold = [float(_count(one, windows)) for one, _ in pairs]
    warm = [float(_count(other, windows)) for _, other in pairs]
    return {
        "cells": len(pairs),
        **_means(cold, warm),
        "warm_needs_more": sum(w > c for c, w in zip(cold, warm, strict=True)),
        "never": [sum(pair[side] is None for pair in pairs) for side in (0, 1)],
    }


def _means(cold: Sequence[float], warm: Sequence[float]) -> dict[str, float | None]:
    if not cold:
        return {"cold": None, "warm": None, "ratio": None}
    of_cold, of_warm = fmean(cold), fmean(warm)
    return {"cold": of_cold, "warm": of_warm, "ratio": of_warm / of_cold if of_cold > 0.0 else None}


def kept(figures: dict[str, Any]) -> bool:
    """Whether a right prior halves the decisions, in all cells and in those that leave something to save."""
    ratios = [figures[RIGHT][name]["ratio"] for name in ("in_force", "in_force_where_cold_needs_two")]
    return all(ratio is not None and ratio <= AT_MOST for ratio in ratios)


def show(trials: Sequence[Trial], paces: Sequence[Pace], figures: dict[str, Any], console: Console) -> None:
    """Print every cell with the right prior, and the figures for each kind."""
    console.print("SIMULATED: GPUs, traffic, energy and the predictors' measurements", style="bold")
    cells = Table(title="cold / warm, by cell: decisions to 95 % of the final revenue rate, mean over seeds")
    for title in ("cell", "in force", "whole windows", "revenue lost, s", "late"):
        cells.add_column(title, justify="left" if title == "cell" else "right")
    for pace in paces:
        if pace.prior == RIGHT:
            own = [trial for trial in trials if (trial.cell, trial.prior) == (pace.cell, RIGHT)]
            cells.add_row(str(pace.cell), *_row(pace, own))
    console.print(cells)
    table = Table(title="cold / warm, means; a run that never settled counts as all of its windows")
    for title in ("prior", *_SHOWN.values(), "late"):
        table.add_column(title, justify="left" if title == "prior" else "right")
    table.add_column("most later", justify="right")
    table.add_column("final rate, mean, lowest", justify="right")
    for name, found in figures.items():
        parts = [found[key] for key in _SHOWN]
        late = found["late_share"]
        table.add_row(
            name,
            *map(_pair, parts),
            f"{late['cold']:.2%} / {late['warm']:.2%}",
            f"{found['late_share_most_more']:+.2%}",
            f"{found['final_rate_warm_over_cold'] or 0.0:.3f}, {found['final_rate_lowest'] or 0.0:.3f}",
        )
    console.print(table)


_SHOWN = {
    "in_force": "in force",
    "in_force_where_cold_needs_two": "where cold needs 2",
    "whole_windows": "whole windows",
    "decisions": "single runs",
    "sustained": "to stay",
    "lost_s": "lost, s",
}


def _row(pace: Pace, trials: Sequence[Trial]) -> list[str]:
    both = [[trial.cold for trial in trials], [trial.warm for trial in trials]]
    later, whole = (pace.cold_in_force, pace.warm_in_force), (pace.cold, pace.warm)
    counts = [["never" if one is None else str(one) for one in pair] for pair in (later, whole)]
    lost_s = [f"{fmean(one.lost_s for one in runs):.2f}" for runs in both]
    late = [f"{fmean(one.late_share for one in runs):.2%}" for runs in both]
    return [" / ".join(pair) for pair in (*counts, lost_s, late)]


def _pair(found: dict[str, Any]) -> str:
    if found["cold"] is None:
        return "-"
    ratio = "" if found["ratio"] is None else f" = {found['ratio']:.2f}"
    return f"{found['cold']:.2f} / {found['warm']:.2f}{ratio}"
