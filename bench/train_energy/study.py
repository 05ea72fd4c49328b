"""All trainings of a plan, kept one by one: what a folder already holds is not run again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from bench.study.kept import keep, kept_runs
from bench.study.runs import Cell, Run
from bench.train_energy.devices import open_trainer
from bench.train_energy.images import CLASSES, digits
from bench.train_energy.networks import check_network
from bench.train_energy.plan import Plan
from bench.train_energy.training import train
from server.errors import ConfigError

Told = Callable[[Run], None]


def missing(plan: Plan, folder: Path) -> list[tuple[Cell, int]]:
    """Return the runs that the folder does not hold yet, in the plan's order."""
    there = {(run.cell, run.number) for run in kept_runs(folder)}
    return [wanted for wanted in plan.runs() if wanted not in there]


def hold(plan: Plan, folder: Path, told: Told, unmeasured: Callable[[str, str], None]) -> None:
    """Run what is missing.

    Args:
        plan: what there shall be.
        folder: where runs are kept; exists.
        told: hears of every run as it ends.
        unmeasured: hears of every device without energy, and why, once.

    Raises:
        ConfigError: a network is unknown or cannot take the pictures, before anything is run.
    """
    images = digits(plan.recipe.image_size, plan.recipe.images)
    _check_sizes(plan, len(images.train))
    gigaflops = {name: check_network(name, CLASSES, plan.recipe.image_size) for name in plan.networks}
    said: set[str] = set()
    for device, wanted in groupby(missing(plan, folder), key=lambda one: one[0].gpu):
        with open_trainer(device) as trainer:
            if trainer.why_not_measured and device not in said:
                said.add(device)
                unmeasured(device, trainer.why_not_measured)
            for cell, seed in wanted:
                run = train(cell, seed, trainer, images, plan.recipe, gigaflops[cell.architecture])
                keep(folder, run)
                told(run)


def _check_sizes(plan: Plan, images: int) -> None:
    if (largest := max(plan.batch_sizes)) > images:
        raise ConfigError(f"--batch {largest}: there are {images} training images; give at most as many")
