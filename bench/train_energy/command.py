"""Train networks on this machine and study what it costs: networks x batch sizes x devices.

Pictures are the 1797 handwritten digits that come with scikit-learn. Energy is the device's own: RAPL on the
CPU, NVML on GPUs, and "not measured" elsewhere. A second call goes on where the first was interrupted.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.console import make_console
from bench.flags import number, whole
from bench.serving.machine import this_machine
from bench.study.command import publish
from bench.study.kept import read_kept
from bench.study.report import examine, figures_of, sections_of
from bench.study.runs import Run
from bench.train_energy.devices import AUTO, indices, spell_out
from bench.train_energy.plan import Plan, Recipe, agree
from bench.train_energy.study import hold, missing
from server.errors import ConfigError
from server.zoo.catalogue import NETWORKS

NETS, BATCHES, REPEATS, EPOCHS = ("mobilenetv2", "resnet50", "densenet121"), (16, 64), 5, 5
QUICK_NETS, QUICK_REPEATS, QUICK_EPOCHS = ("mobilenetv2", "resnet50"), 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton train-energy` takes."""
    add = parser.add_argument
    add("--network", action="append", metavar="NAME", help=_NETWORK)
    add("--batch", action="append", type=whole(2, 4096), metavar="N", help=_BATCH)
    add("--device", action="append", metavar="DEV", help=_DEVICE)
    add("--repeats", type=whole(1, 1000), metavar="N", help=f"seeds a cell (default: {REPEATS})")
    add("--epochs", type=whole(1, 1000), metavar="N", help=f"(default: {EPOCHS})")
    add("--image-size", type=whole(8, 512), default=32, metavar="N", help="pixels (default: 32)")
    add("--images", type=whole(2, 1347), metavar="N", help="training images used (default: all 1347)")
    add("--learning-rate", type=number(0.0, 10.0), default=1e-3, metavar="R", help="Adam's (default: 0.001)")
    add("--threads", type=whole(1, 1024), metavar="N", help="of the CPU (default: PyTorch's choice)")
    add("--least-f1", type=number(0.0, 1.0, zero=True), default=0.0, metavar="F", help=_F1)
    add("--quick", action="store_true", help=_QUICK)
    add("--output", type=Path, default=Path("train-energy-out"), metavar="DIR", help=_OUTPUT)


_NETWORK = (
    f"of the zoo ({', '.join(NETWORKS)}), or module:function; may be repeated (default: {', '.join(NETS)})"
)
_BATCH = f"batch size; may be repeated (default: {', '.join(map(str, BATCHES))})"
_DEVICE = "cpu, cuda:0, cuda:0+1 (both at once) or auto; may be repeated (default: auto)"
_F1 = "a training below has failed and is left out of the report (default: 0)"
_OUTPUT = "for runs and report (default: train-energy-out)"
_QUICK = (
    f"where not given: {', '.join(QUICK_NETS)}, {QUICK_REPEATS} repeats, {QUICK_EPOCHS} epochs; minutes on"
    " two idle cores, and no study worth the name"
)


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, compare and report."""
    plan, console = plan_from(arguments, torch.cuda.device_count()), make_console()
    machine = this_machine()
    devices = _models(plan)
    conditions = {"machine": machine, "torch": version("torch"), "devices": devices}
    _prepare(arguments.output, plan.recipe, conditions)
    console.print(f"{machine}\nPyTorch {conditions['torch']}", style="dim", highlight=False)
    if plan.recipe.threads is not None:
        torch.set_num_threads(plan.recipe.threads)
    _train(plan, arguments.output, console)
    study = examine(read_kept(arguments.output), arguments.least_f1)
    lead = f"{len(study.runs)} trainings on scikit-learn's digits. {_told(devices)}"
    figures = {**conditions, "recipe": plan.recipe, **figures_of(study)}
    publish("What training costs here", lead, sections_of(study), figures, arguments.output, console)
    return 0


def plan_from(arguments: argparse.Namespace, gpus: int) -> Plan:
    """Turn flags into a plan; PyTorch can use `gpus`. Raises ConfigError when a device is not there."""
    quick = arguments.quick
    return Plan(
        networks=tuple(dict.fromkeys(arguments.network or (QUICK_NETS if quick else NETS))),
        batch_sizes=tuple(sorted(set(arguments.batch or BATCHES))),
        devices=spell_out(arguments.device or (AUTO,), gpus),
        repeats=arguments.repeats or (QUICK_REPEATS if quick else REPEATS),
        recipe=Recipe(
            epochs=arguments.epochs or (QUICK_EPOCHS if quick else EPOCHS),
            image_size=arguments.image_size,
            learning_rate=arguments.learning_rate,
            images=arguments.images,
            threads=arguments.threads,
        ),
    )


def _prepare(folder: Path, recipe: Recipe, conditions: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder} cannot be made: {error.strerror}") from error
    agree(folder, recipe, conditions)


def _train(plan: Plan, folder: Path, console: Console) -> None:
    left = len(missing(plan, folder))
    console.print(f"{len(plan)} trainings, {len(plan) - left} of them there already", highlight=False)
    done = len(plan) - left

    def told(run: Run) -> None:
        nonlocal done
        done += 1
        joules = run.energy.joules
        energy = "energy not measured" if joules is None else f"{joules:.1f} J ({run.energy.source.value})"
        text = f"{done}/{len(plan)} {run.cell}, seed {run.number}: {run.duration_s:.1f} s, {energy}"
        console.print(f"{text}, F1 {run.f1:.3f}", markup=False, highlight=False)

    def unmeasured(device: str, why: str) -> None:
        console.print(
            f"{device}: energy is not measured: {why}", style="yellow", markup=False, highlight=False
        )

    hold(plan, folder, told, unmeasured)


def _models(plan: Plan) -> dict[str, str]:
    """What the devices are."""
    return {
        name: ", ".join(torch.cuda.get_device_name(index) for index in indices(name)) or this_machine().cpu
        for name in plan.devices
    }


def _told(devices: dict[str, str]) -> str:
    return "; ".join(f"{name}: {model}" for name, model in devices.items())
