"""What is said about a rehearsal: numbers for machines, a table for people, all of it called simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.simulate.run import Run
from bench.simulate.scenario import Scenario
from optimizer.operating_point import OperatingPoint
from optimizer.telemetry import EnergySource
from optimizer.twin.slowdown import Slowdown
from server.governing.decision_text import decision_line


@dataclass(frozen=True, slots=True)
class Report:
    """A rehearsal and what it is held against: the default setting, and the best fixed one in hindsight."""

    scenario: Scenario
    arrivals: str
    run: Run
    default_point: OperatingPoint
    default: Run
    oracle_point: OperatingPoint
    oracle: Run
    settings_tried: int

    @property
    def attained_share(self) -> float | None:
        """(this - default) / (best fixed setting - default); None when there was nothing to attain."""
        attainable = self.oracle.revenue - self.default.revenue
        return (self.run.revenue - self.default.revenue) / attainable if attainable > 0.0 else None


def as_json(report: Report) -> dict[str, Any]:
    """The run as JSON can hold it."""
    run, scenario = report.run, report.scenario
    return {
        "policy": run.policy,
        "images_arrived": run.images_arrived,
        **_outcome(run),
        "revenue_default": report.default.revenue,
        "revenue_static_oracle": report.oracle.revenue,
        "clock_changes": run.clock_changes,
        "decide_us_p99": run.decide_us_p99,
        "simulated": True,
        "energy_source": str(EnergySource.SIMULATED),
        "form": scenario.targets.form,
        "attained_share": report.attained_share,
        "default": _fixed(report.default_point, report.default),
        "static_oracle": _fixed(report.oracle_point, report.oracle),
        "settings_tried": report.settings_tried,
        "gpu": scenario.profile.name,
        "gpu_source": scenario.profile.source,
        "model": scenario.model,
        "arrivals": report.arrivals,
        "duration_s": scenario.duration_s,
        "simulated_s": scenario.end_s,
        "slo_p99_ms": scenario.targets.slo_p99_ms,
        "seed": scenario.seed,
        "slowdowns": [
            {"sm_clock_mhz": s.clock_mhz, "start_s": s.start_s, "end_s": s.end_s} for s in scenario.slowdowns
        ],
        "max_batch": scenario.max_batch,
        "interval_s": scenario.interval_s,
        "real_time_factor": run.real_time_factor,
        "images_per_wall_s": _images_per_wall_s(report),
    }


def _fixed(point: OperatingPoint, run: Run) -> dict[str, Any]:
    return {
        "batch_limit": point.batch_limit,
        "sm_clock_mhz": point.sm_clock_mhz,
        **_outcome(run),
    }


def _outcome(run: Run) -> dict[str, Any]:
    return {
        "images_completed": run.images_completed,
        "images_late": run.images_late,
        "latency_ms": dict(run.latency_ms),
        "energy_j": run.energy_j,
        "images_per_joule": run.images_per_joule,
        "revenue": run.revenue,
    }


def show(report: Report, console: Console) -> None:
    """Print the run beside the default setting and the best fixed one."""
    scenario, run = report.scenario, report.run
    headline = f"SIMULATED: {scenario.model} on {scenario.profile.name}, {report.arrivals}"
    console.print(
        f"{headline} for {scenario.duration_s:g} s, seed {scenario.seed}", highlight=False, markup=False
    )
    for slowdown in scenario.slowdowns:
        console.print(f"  {_held(slowdown)}", highlight=False, markup=False)
    console.print(_table(report))
    for line in (*_comparison(report), _speed(report)):
        console.print(f"  {line}", highlight=False, markup=False)
    if run.records:
        last = run.records[-1].decision
        console.print(f"  last decision: {last.point}", highlight=False, markup=False)


def _held(slowdown: Slowdown) -> str:
    span = f"from {slowdown.start_s:g} to {slowdown.end_s:g} s"
    return f"slowed down {span}, whoever decides: at most {slowdown.clock_mhz} MHz ({slowdown.reason.name})"


def show_decisions(run: Run, console: Console) -> None:
    """Print every turn of the governor as a line."""
    for record in run.records:
        line = f"{record.window.end_s:8.1f} s  {decision_line(record)}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(report: Report) -> Table:
    form = report.scenario.targets.form
    table = Table(title="everything here is simulated, energy included", title_justify="left")
    for name in ("", "late", "p50 ms", "p99 ms", "J (simulated)", "images/J", _FORM_NAMES.get(form, form)):
        table.add_column(name, justify="right" if name else "left")
    rows = ((report.run.policy, report.run), ("default", report.default), ("best fixed", report.oracle))
    for name, run in rows:
        table.add_row(name, *_cells(run))
    return table


_FORM_NAMES = {"profit": "revenue"}


def _cells(run: Run) -> list[str]:
    late = run.images_late / run.images_arrived if run.images_arrived else 0.0
    return [
        f"{late:.2%}",
        _milliseconds(run.latency_ms["p50"]),
        _milliseconds(run.latency_ms["p99"]),
        f"{run.energy_j:,.0f}",
        f"{run.images_per_joule:.2f}",
        f"{run.revenue:.6g}",
    ]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _comparison(report: Report) -> list[str]:
    run, default = report.run, report.default
    counts = f"{run.images_arrived:,} images arrived, {run.images_completed:,} were answered before the end"
    lines = [
        f"default is {report.default_point}; best fixed, in hindsight, is {report.oracle_point}",
        f"{counts}, {run.images_late:,} late; {run.clock_changes} clock changes",
    ]
    if default.images_per_joule and run.images_per_joule:
        less = 1.0 - default.images_per_joule / run.images_per_joule
        lines.append(
            f"{abs(less):.1%} {'fewer' if less >= 0.0 else 'more'} joules per image than the default setting"
        )
    share = report.attained_share
    if share is not None:
        lines.append(f"{share:.2f} of what the best fixed setting gains over the default was attained")
    return lines


def _speed(report: Report) -> str:
    run = report.run
    rate = f"{_images_per_wall_s(report):,.0f} images/s, {run.real_time_factor:,.0f} x real time"
    return f"simulated at {rate}; decisions took {run.decide_us_p99:.0f} us (p99) of this machine"


def _images_per_wall_s(report: Report) -> float:
    wall_s = report.scenario.end_s / report.run.real_time_factor if report.run.real_time_factor else math.inf
    return report.run.images_arrived / wall_s
