"""A study of training as `boulton train-energy` performs it: trains what is missing, compares and reports."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.console import make_console
from bench.serving.machine import this_machine
from bench.study.command import publish
from bench.study.kept import read_kept
from bench.study.report import examine, figures_of, sections_of
from bench.study.runs import Run
from bench.train_energy.command import (
    BATCHES,
    EPOCHS,
    NETS,
    QUICK_EPOCHS,
    QUICK_NETS,
    QUICK_REPEATS,
    REPEATS,
)
from bench.train_energy.devices import AUTO, indices, spell_out
from bench.train_energy.plan import Plan, Recipe, agree
from bench.train_energy.study import hold, missing
from server.files import make_folder


def perform(arguments: argparse.Namespace) -> int:
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
    make_folder(folder, "--output")
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
