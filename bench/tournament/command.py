"""Play policies against each other on simulated GPUs, and judge them by the revenue they earn.

Cells are all combinations of the axes. Results are kept in the output folder: a second run simulates only
what is missing, or was made under other settings. Everything it prints is simulated.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from bench.console import make_console
from bench.flags import number, whole
from bench.serving.machine import this_machine
from bench.simulate.policy_names import FIXED, PLAYED_AS, played_name
from bench.tournament import report
from bench.tournament.contest import Results, hold
from bench.tournament.ground import cap_of, profile_of
from bench.tournament.landscape import survey
from bench.tournament.plan import OURS, SLOS, TRAFFICS, Plan, Settings, make_plan
from bench.tournament.results import Ground
from bench.tournament.summary import Summary, summarise
from optimizer.policies.registry import POLICY_NAMES
from optimizer.twin.profile import shipped_profiles
from server.errors import ConfigError
from server.files import make_folder

EXIT_INCOMPLETE = 1
SHOWN_CELLS = 6
QUICK_GPUS, QUICK_MODELS, QUICK_SLOS = ("t4", "v100"), ("resnet50",), ("tight", "medium")
DURATION_S, QUICK_DURATION_S = 300.0, 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton tournament` takes."""
    add = parser.add_argument
    add("--gpu", action="append", metavar="P", help=_GPU)
    add(
        "--model", action="append", metavar="NAME", help="network; may be repeated (default: all of each GPU)"
    )
    add(
        "--traffic", action="append", choices=TRAFFICS, help="kind of traffic; may be repeated (default: all)"
    )
    add("--slo", action="append", choices=SLOS, help="how tight; may be repeated (default: all)")
    add("--policy", action="append", type=played_name, choices=POLICY_NAMES, help=_POLICY)
    add("--duration", type=number(1.0, 86400.0), metavar="S", help=_DURATION)
    add("--seed", type=whole(0, 2**31), default=0, metavar="N", help="of traffic and noise (default: 0)")
    add("--max-batch", type=whole(1, 4096), default=128, metavar="N", help="the engine's (default: 128)")
    add("--workers", type=whole(1, 1024), metavar="N", help="processes (default: one a core)")
    add("--out", type=Path, default=Path("tournament-out"), metavar="DIR", help=_OUT)
    add("--quick", action="store_true", help=_QUICK)
    add("--fresh", action="append", choices=POLICY_NAMES, help="simulate this policy anew; may be repeated")


_GPU = "a shipped profile or the path of another; may be repeated (default: all shipped)"
_DURATION = f"simulated traffic in each cell (default: {DURATION_S:g}; with --quick {QUICK_DURATION_S:g})"
_POLICY = f"who plays; may be repeated (default: all); {FIXED}, as `boulton serve` has it, is {PLAYED_AS}"
_OUT = "for results, report and plots (default: tournament-out)"
_QUICK = (
    f"where an axis is not given: {', '.join(QUICK_GPUS)}, {', '.join(QUICK_MODELS)}, SLO "
    f"{', '.join(QUICK_SLOS)}; minutes on two cores"
)


def run(arguments: argparse.Namespace) -> int:
    """Play, report and draw: 1 when something could not be simulated."""
    plan, workers = plan_from(arguments), arguments.workers or _cores()
    console, machine, began_s = make_console(), this_machine(), time.monotonic()
    console.print(str(machine), style="dim", highlight=False)
    console.print(f"{len(plan.cells)} cells, {len(plan.policies)} policies, {workers} processes; simulated")
    make_folder(arguments.out, "--out")
    results = hold(plan, arguments.out, workers, fresh=arguments.fresh or ())
    summary = _judge(results, plan)
    report.show(summary, console)
    plots = _draw(summary, results, plan, arguments.out, console)
    wall_s = time.monotonic() - began_s
    conditions = report.Conditions(_command_line(), plan, machine, wall_s, results.simulated)
    for path in (*report.write(summary, conditions, plots, arguments.out), *plots):
        console.print(f"wrote {path}", style="dim", highlight=False)
    _conclude(summary, console)
    return EXIT_INCOMPLETE if results.failures else 0


def plan_from(arguments: argparse.Namespace) -> Plan:
    """Turn flags into a plan. Raises SettingsError when a GPU is unknown or its profile is unusable."""
    quick = arguments.quick
    gpus = arguments.gpu or (QUICK_GPUS if quick else shipped_profiles())
    named = arguments.model or (QUICK_MODELS if quick else None)
    policies = arguments.policy or POLICY_NAMES
    if arguments.fresh and (strangers := [name for name in arguments.fresh if name not in policies]):
        raise ConfigError(f"--fresh {strangers[0]} does not play; add --policy {strangers[0]}")
    return make_plan(
        gpus=gpus,
        models_of=_models_of(named),
        traffics=arguments.traffic or TRAFFICS,
        slos=arguments.slo or (QUICK_SLOS if quick else SLOS),
        policies=policies,
        settings=Settings(
            duration_s=arguments.duration or (QUICK_DURATION_S if quick else DURATION_S),
            seed=arguments.seed,
            max_batch=arguments.max_batch,
        ),
    )


def _models_of(named: Sequence[str] | None) -> Callable[[str], Sequence[str]]:
    """Every GPU has networks of its own, but those that are asked for are asked of each."""

    def models_of(gpu: str) -> Sequence[str]:
        models = profile_of(gpu).models
        return sorted(models) if named is None else named

    return models_of


def _judge(results: Results, plan: Plan) -> Summary:
    gpus = dict.fromkeys(ground.cell.gpu for ground in results.grounds)
    caps = [cap_of(gpu, plan.settings.max_batch) for gpu in gpus]
    return summarise(results.grounds, results.played, results.failures, caps, plan.settings.duration_s)


def _draw(summary: Summary, results: Results, plan: Plan, folder: Path, console: Console) -> list[Path]:
    """Plots need an extra; without it there is all the rest."""
    if not summary.lines:
        return []
    if find_spec("matplotlib") is None:
        console.print("no plots: pip install 'boulton[tournament]'", style="yellow", markup=False)
        return []
    from bench.tournament import plots

    shown = [
        (ground, own, survey(ground, plan.settings))
        for ground in _to_show(results)
        if (own := [run for run in results.played if run.cell == ground.cell])
    ]
    return plots.draw_all(summary, shown, folder)


def _to_show(results: Results) -> Sequence[Ground]:
    """One cell of each kind of traffic: the first that our policy played, else the first."""
    ours = {run.cell for run in results.played if run.policy == OURS}
    first: dict[str, Ground] = {}
    for ground in sorted(results.grounds, key=lambda ground: ground.cell not in ours):
        first.setdefault(ground.cell.traffic, ground)
    return list(first.values())[:SHOWN_CELLS]


def _conclude(summary: Summary, console: Console) -> None:
    judged = [figure for figure in summary.figures if figure.reached is not None]
    missed = [figure.name for figure in judged if not figure.reached]
    console.print(f"{len(judged) - len(missed)} of {len(judged)} targets reached (simulated)", style="bold")
    for name in missed:
        console.print(f"  missed: {name}", style="red", markup=False)


def _command_line() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _cores() -> int:
    return len(os.sched_getaffinity(0))
