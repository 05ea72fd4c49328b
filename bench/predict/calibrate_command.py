"""Measure layers on this machine and fit a predictor to them, for `boulton predict`.

Small random networks are timed step by step, by default on ONNX Runtime's CPU engine, each at several batch
sizes; where the processor has an energy counter, their energy is measured too. The dataset grows as they are
measured: run it again to go on. With --simulated GPU the layers of a simulated GPU are "measured" instead,
which takes seconds and is marked in all that follows from it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from bench.console import make_console
from bench.flags import number, whole
from bench.layers.engines import TIMERS
from bench.predict.calibrating import file_jobs, measure_into, simulate_into, small_jobs
from bench.undisturbed import NONE, USUAL
from optimizer.layers.dataset import Dataset, DatasetError, load_dataset
from optimizer.layers.fitting import fit_predictor
from optimizer.layers.saved import save_predictor
from optimizer.layers.simulated import SimulatedLayers
from optimizer.settings_table import SettingsError
from optimizer.twin.profile import load_profile, shipped_profiles
from server.errors import ConfigError

_LINE_EVERY = 25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton calibrate` takes."""
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="FILE", help="measurements, .jsonl; is gone on with")
    add("--output", type=Path, metavar="FILE", help="the fitted predictor, .npz; left out: only measure")
    add("--networks", type=whole(1, 100000), default=240, metavar="N", help="small networks (default: 240)")
    add("--batches-each", type=whole(1, 12), default=3, metavar="N", help="batch sizes of each (default: 3)")
    add("--rounds", type=whole(1, 100), default=3, metavar="N", help=_ROUNDS)
    add(
        "--simulated",
        metavar="GPU",
        help=f"a profile instead of this machine: {', '.join(shipped_profiles())}",
    )
    add("--clocks", type=whole(1, 64), default=7, metavar="N", help="clocks of a simulated GPU (default: 7)")
    add("--model", type=Path, action="append", default=[], metavar="FILE", help=_MODEL)
    add("--model-batch", type=whole(1, 65536), action="append", default=[], metavar="N", help="for --model")
    add(
        "--engine",
        choices=tuple(TIMERS),
        default="onnxruntime",
        help="what to measure on (default: %(default)s)",
    )
    add("--device-index", type=whole(0, 1023), default=0, metavar="N", help="the GPU (default: %(default)s)")
    add("--patience", type=number(0.0, 3600.0), default=USUAL.at_once_s, metavar="S", help=_PATIENCE)
    add("--energy", choices=("auto", "none"), default="auto", help=_ENERGY)
    add("--energy-s", type=number(0.1, 600.0), default=1.0, metavar="S", help=_ENERGY_S)


_ENERGY = "measure it where the processor has a counter, or not at all (default: %(default)s)"
_ENERGY_S = "for how long each network is repeated for it, at least; long against the counter (default: 1)"
_PATIENCE = (
    "how long each timed run of onnxruntime waits for a core that nobody else works on, as neighbours of a "
    "virtual machine do; altogether at most three times the time for measuring; 0: not at all (default: "
    "%(default)g)"
)
_ROUNDS = "how often to measure each; the median of the times counts, simulated ones in the mean (default: 3)"
_MODEL = "an ONNX file to measure instead of small networks, e.g. to judge a predictor; may be repeated"


def run(arguments: argparse.Namespace) -> int:
    """Measure, fit, say. Raises ConfigError."""
    if arguments.output is not None and arguments.output.suffix != ".npz":
        raise ConfigError(f"--output {arguments.output} must end in .npz")
    if arguments.output is not None:
        import scipy.optimize  # noqa: F401  # the fit needs it: better missed before measuring than after
    try:
        (_simulate if arguments.simulated else _measure)(arguments)
        dataset = load_dataset(arguments.dataset)
        _say(dataset)
        if arguments.output is not None:
            save_predictor(fit_predictor(dataset), arguments.output)
            make_console(markup=False).print(f"predictor: {arguments.output}", highlight=False)
    except (DatasetError, SettingsError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    # Neither its help nor a simulated GPU needs the engines.
    from bench.predict.measured_device import Wanted, open_device

    if arguments.model:
        jobs = list(file_jobs(arguments.model, arguments.model_batch or [1]))
    else:
        jobs = list(small_jobs(arguments.networks, arguments.batches_each))
    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=len(jobs) * arguments.rounds)
        count = 0

        def said(name: str) -> None:
            nonlocal count
            count += 1
            progress.update(task, advance=1, description=escape(name))
            if not console.is_terminal and count % _LINE_EVERY == 0:
                console.print(
                    f"{count} of {len(jobs) * arguments.rounds} measured, last {name}",
                    markup=False,
                    highlight=False,
                )

        wanted = Wanted(
            arguments.engine,
            arguments.device_index,
            arguments.energy_s if arguments.energy == "auto" else None,
        )
        patience = replace(USUAL, at_once_s=arguments.patience) if arguments.patience else NONE
        with open_device(wanted, patience) as device:
            for note in device.notes:
                console.print(note, highlight=False)
            measure_into(arguments.dataset, jobs, device.provenance, device.measure, said, arguments.rounds)


def _simulate(arguments: argparse.Namespace) -> None:
    profile = load_profile(arguments.simulated)
    legal = profile.sm_clocks_mhz
    chosen = np.unique(np.linspace(0, len(legal) - 1, arguments.clocks).round().astype(int))
    clocks = [legal[place] for place in chosen]
    layers = SimulatedLayers.of(profile)
    provenance = _simulated_device(arguments.simulated, profile.source)
    if arguments.model:
        jobs = list(file_jobs(arguments.model, arguments.model_batch or [1]))
    else:
        jobs = list(small_jobs(arguments.networks, arguments.batches_each, math.inf))
    provenance["rounds"] = arguments.rounds
    simulate_into(arguments.dataset, jobs, layers, clocks, provenance, arguments.rounds)


def _simulated_device(name: str, source: str) -> dict[str, Any]:
    return {
        "simulated": True,
        "device": name,
        "cpu": "none",
        "engine": "simulated",
        "threads": 0,
        "date": date.today().isoformat(),  # noqa: DTZ011
        "method": "time and energy of the profile's ResNet-50, shared out among layers (assumed)",
        "energy": "simulated",
        "profile": source,
    }


def _say(dataset: Dataset) -> None:
    table = dataset.rows().table
    kinds: Sequence[str] = sorted({kind.value for kind in table.kinds})
    counts = ", ".join(f"{sum(k.value == kind for k in table.kinds)} {kind}" for kind in kinds)
    word = "simulated" if dataset.simulated else "measured"
    make_console().print(
        f"{word}: {len(dataset.measured)} runs of networks; steps: {counts}", highlight=False
    )
