"""Cold against warm start in the simulator: `python -m bench.warm_start --networks DIR --save`.

The cells are the tournament's with steady traffic: GPUs x networks x low and high load x three SLOs. In each
the governor starts twice on the same arrivals, once knowing nothing and once with what a layer-wise predictor
says of the network, which that predictor was not fitted to. The networks take what their layers take
(`layered`): as in practice, the predictor was fitted to the machine that serves. With `--whole` they are the
twin's own, another machine of the same name, of which predictions are off by up to a half. `--wrong` bends
the prediction and tries again: that must cost next to nothing. Exits 1 when the prediction does not halve the
decisions, in the mean over all cells and over those where a cold start needs two or more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from bench.console import make_console
from bench.flags import number, whole
from bench.serving.machine import this_machine
from bench.serving.report import RESULTS
from bench.tournament.plan import SLOS, STEADY, Cell
from bench.warm_start.layered import write_layered
from bench.warm_start.summary import kept, show, summary
from bench.warm_start.trials import RIGHT, WRONG, Sources, Tried, try_cell

GPUS = ("v100", "t4", "a100")
MODELS = ("resnet50", "vgg16", "mobilenetv2", "efficientnet-lite0")


def main(argv: Sequence[str] | None = None) -> int:
    """Play, show and save; 0 when the promise was kept, 1 when not."""
    arguments = _parser().parse_args(argv)
    models = arguments.model or MODELS
    bent = (RIGHT, *WRONG) if arguments.wrong else (RIGHT,)
    with TemporaryDirectory() as folder:
        gpus = [_machine(gpu, models, arguments, Path(folder)) for gpu in arguments.gpu or GPUS]
        cells = [Cell(*names) for names in product(gpus, models, arguments.traffic or STEADY, SLOS)]
        Random(0).shuffle(cells)  # whatever is played when the time is up is a fair sample
        played = [_named(tried) for tried in play(cells, arguments, bent)]
    if not played:
        return 1
    trials = sorted((t for tried in played for t in tried.trials), key=lambda trial: (trial.cell, trial.seed))
    paces = sorted((p for tried in played for p in tried.paces), key=lambda pace: pace.cell)
    figures = summary(trials, paces, round(arguments.duration))
    show(trials, paces, figures, make_console())
    if arguments.save:
        print(f"saved {_save(Tried(tuple(trials), tuple(paces)), figures, arguments, len(cells))}")
    return 0 if kept(figures) else 1


def _machine(gpu: str, models: Sequence[str], arguments: argparse.Namespace, folder: Path) -> str:
    """Return a shipped profile's name, or the path of the one of the same name whose networks are layers."""
    networks = [arguments.networks / f"{model}.onnx" for model in models]
    return gpu if arguments.whole else str(write_layered(gpu, networks, folder))


def _named(tried: Tried) -> Tried:
    """Call GPUs by their names: where their profiles lay for a while says nothing."""
    return Tried(
        tuple(replace(one, cell=replace(one.cell, gpu=one.cell.gpu_name)) for one in tried.trials),
        tuple(replace(one, cell=replace(one.cell, gpu=one.cell.gpu_name)) for one in tried.paces),
    )


def play(cells: Sequence[Cell], arguments: argparse.Namespace, bent: tuple[str, ...]) -> list[Tried]:
    """Play cells, several at once, until all are or the time is up; say how far it is."""
    sources = Sources(arguments.networks, arguments.predictors)
    end_s = time.monotonic() + 60.0 * arguments.minutes
    found: list[Tried] = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        playing = [
            pool.submit(try_cell, cell, sources, arguments.seeds, arguments.duration, bent) for cell in cells
        ]
        for done, (cell, job) in enumerate(zip(cells, playing, strict=True), start=1):
            if time.monotonic() > end_s:
                pool.shutdown(wait=False, cancel_futures=True)
            if job.cancelled():
                break
            found.append(job.result())
            print(f"{done} of {len(cells)}: {cell}", file=sys.stderr)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.warm_start", description=__doc__)
    add = parser.add_argument
    add("--networks", type=Path, required=True, metavar="DIR", help="NAME.onnx of each network of the twin")
    add("--predictors", type=Path, required=True, metavar="DIR", help=_PREDICTORS)
    add("--gpu", action="append", metavar="NAME", help=f"may be repeated (default: {', '.join(GPUS)})")
    add("--model", action="append", metavar="NAME", help=f"may be repeated (default: {', '.join(MODELS)})")
    add("--traffic", action="append", choices=STEADY, help="may be repeated (default: both)")
    add("--seeds", type=whole(1, 100), default=8, metavar="N", help="of arrivals and noise (default: 8)")
    add("--duration", type=number(40.0, 3600.0), default=60.0, metavar="S", help="of a run (default: 60)")
    add("--processes", type=whole(1, 256), default=2, metavar="N", help="at once (default: 2)")
    add("--minutes", type=number(0.1, 1e4), default=600.0, metavar="N", help=_MINUTES)
    add("--whole", action="store_true", help="play the twin's own networks, which are no sums of layers")
    add("--wrong", action="store_true", help="try wrong predictions as well")
    add("--save", action="store_true", help=f"keep the result as JSON in {RESULTS.name}/")
    return parser


_PREDICTORS = "NAME.npz of each GPU, by `boulton calibrate --simulated NAME --output NAME.npz`"
_MINUTES = "begin no cell after so long; cells come in an order drawn by lot (default: 600)"


def _save(tried: Tried, figures: dict[str, Any], arguments: argparse.Namespace, planned: int) -> Path:
    now = datetime.now(UTC)
    path = RESULTS / f"warm-start-{now:%Y%m%d-%H%M%S}.json"
    result = {
        "command": "python -m bench.warm_start " + " ".join(sys.argv[1:]),
        "taken_at": now.isoformat(),
        "machine": asdict(this_machine()),
        "simulated": "GPUs, traffic, energy, and what the predictors were fitted to",
        "kept": kept(figures),
        "cells_planned": planned,
        "cells_played": len({pace.cell for pace in tried.paces}),
        "networks": "the twin's own" if arguments.whole else "sums of the layers that predictors saw",
        "figures": figures,
        "paces": [asdict(pace) for pace in tried.paces],
        "trials": [asdict(trial) for trial in tried.trials],
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
