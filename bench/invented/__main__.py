"""The policy on cards, networks, traffic and targets drawn by lot: `python -m bench.invented --count 200`.

What ships with a project can be tuned to, on purpose or not; what is drawn by lot cannot, as long as nobody
looks at the seeds before. Each scenario is played by our policy and by the default setting. All is simulated.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from bench.console import make_console
from bench.flags import number, whole
from bench.invented.trial import LATE_ALLOWED, Trial, play
from bench.progress import CountingBar
from bench.serving.machine import this_machine
from bench.serving.report import RESULTS

_WORSE = 0.995
_LINE_EVERY_S = 10.0


def main(argv: Sequence[str] | None = None) -> None:
    """Play, show and save."""
    arguments = _parser().parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.count)
    console = make_console()
    console.print(str(this_machine()), style="dim", highlight=False)
    trials = _play(seeds, arguments.duration, arguments.processes)
    figures = summary(trials)
    _show(trials, figures, console)
    if arguments.save:
        console.print(f"saved {_save(trials, figures, arguments)}")


def _play(seeds: range, duration_s: float, processes: int) -> list[Trial]:
    trials = []
    with (
        CountingBar("playing", "played, last", _LINE_EVERY_S, len(seeds)) as progress,
        ProcessPoolExecutor(processes) as pool,
    ):
        for trial in pool.map(partial(play, duration_s=duration_s), seeds):
            trials.append(trial)
            progress.done()
            progress.doing(f"seed {trial.seed}, {trial.traffic}")
    return trials


def summary(trials: Sequence[Trial]) -> dict[str, float]:
    """Return what is to be known of many trials; at least one."""
    keepable = [trial for trial in trials if trial.can_be_kept]
    ratios = [trial.revenue_ratio for trial in trials if trial.can_be_kept]
    return {
        "scenarios": len(trials),
        "the SLO can be kept in": len(keepable),
        "of these ours keeps it in": sum(trial.kept for trial in keepable),
        "late, ours, mean where it can be kept": fmean(trial.late for trial in keepable) if keepable else 0.0,
        "late, ours, highest where it can be kept": max((trial.late for trial in keepable), default=0.0),
        "revenue over the default setting's, mean where it can be kept": fmean(ratios) if ratios else 1.0,
        "the same, median": median(ratios) if ratios else 1.0,
        "the same, lowest": min(ratios, default=1.0),
        "earns over 0.5 % less than the default setting in": sum(ratio < _WORSE for ratio in ratios),
        "energy over the default setting's, mean": fmean(trial.energy_ratio for trial in trials),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.invented", description=__doc__)
    add = parser.add_argument
    add("--count", type=whole(1, 100_000), default=100, metavar="N", help="scenarios (default: 100)")
    add("--first-seed", type=whole(0, 2**31), default=0, metavar="N", help="the others follow (default: 0)")
    add("--duration", type=number(1.0, 3600.0), default=90.0, metavar="S", help="simulated (default: 90)")
    add("--processes", type=whole(1, 256), default=os.cpu_count(), metavar="N", help="default: one a core")
    add("--save", action="store_true", help="keep the figures under bench/results")
    return parser


def _show(trials: Sequence[Trial], figures: dict[str, float], console: Console) -> None:
    table = Table(title="Where the SLO could be kept and was not, or less was earned (simulated)")
    for heading in ("seed", "traffic", "load", "SLO ms", "images", "late", "default's", "revenue ratio"):
        table.add_column(heading, justify="left" if heading == "traffic" else "right")
    for trial in trials:
        if trial.can_be_kept and not (trial.kept and trial.revenue_ratio >= _WORSE):
            table.add_row(
                str(trial.seed),
                trial.traffic,
                f"{trial.load:g}",
                f"{trial.slo_ms:.1f}",
                str(trial.images),
                f"{trial.late:.2%}",
                f"{trial.default_late:.2%}",
                f"{trial.revenue_ratio:.3f}",
            )
    console.print(table)
    for name, figure in figures.items():
        console.print(f"{name}: {figure:.4g}", highlight=False)
    console.print(f"kept: at most {LATE_ALLOWED:.0%} late, cold start included", highlight=False)


def _save(trials: Sequence[Trial], figures: dict[str, float], arguments: argparse.Namespace) -> str:
    now = datetime.now(UTC)
    report = {
        "source": "simulated",
        "date": now.isoformat(timespec="seconds"),
        "command": f"python -m bench.invented --count {arguments.count} --first-seed {arguments.first_seed} "
        f"--duration {arguments.duration:g} --save",
        "machine": asdict(this_machine()),
        "figures": figures,
        "trials": [asdict(trial) for trial in trials],
    }
    path = RESULTS / f"invented-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()
