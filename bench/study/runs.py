"""What a study is about: trainings from start to end, and the cells of equal settings that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from optimizer.telemetry import Energy

K = TypeVar("K", bound=Hashable)


class Cell(NamedTuple):
    """Settings that several runs share."""

    gpu: str
    architecture: str
    batch_size: int

    def __str__(self) -> str:
        return f"{self.architecture}, batch {self.batch_size}, {self.gpu}"


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Args:
        gpu: the device that trained; several are joined by `+`.
        architecture: the network.
        batch_size: images a step.
        number: tells the runs of a cell apart.
        images: seen in training, every epoch's counted.
        epochs: how often the whole set was seen.
        duration_s: of the training.
        energy: of the device while it trained.
        f1: of the trained network on images it was not trained on, 0 to 1.
        accuracy: on the same images, 0 to 1.
        gigaflops: of one image going forward; None when not known.
        gpu_use: mean share of the time that the device was busy, 0 to 1; None when not known.
        power_w: mean power by the device's own telling; None when not known.
        power_limit_w: in force while it trained; None when not known.
    """

    gpu: str
    architecture: str
    batch_size: int
    number: int
    images: int
    epochs: int
    duration_s: float
    energy: Energy
    f1: float
    accuracy: float
    gigaflops: float | None = None
    gpu_use: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None

    @property
    def cell(self) -> Cell:
        """The settings that it shares with its repeats."""
        return Cell(self.gpu, self.architecture, self.batch_size)

    @property
    def joules_per_image(self) -> float | None:
        """Energy over images seen; None when nothing measured it."""
        return None if self.energy.joules is None else self.energy.joules / self.images

    @property
    def seconds_per_image(self) -> float:
        """Duration over images seen."""
        return self.duration_s / self.images


@dataclass(frozen=True, slots=True)
class Measure:
    """What runs are compared by: a figure for one image, smaller being better."""

    name: str
    unit: str
    of: Callable[[Run], float]


def _joules(run: Run) -> float:
    if run.joules_per_image is None:
        raise ValueError(f"the energy of {run.cell} was not measured")
    return run.joules_per_image


def _milliseconds(run: Run) -> float:
    return run.seconds_per_image * 1e3


ENERGY = Measure("energy per image", "J", _joules)
TIME = Measure("time per image", "ms", _milliseconds)


def measure_of(runs: Iterable[Run]) -> Measure:
    """Return energy where every run's was measured, else time: a study must not mix the two."""
    return ENERGY if all(run.energy.joules is not None for run in runs) else TIME


def grouped(runs: Iterable[Run], key: Callable[[Run], K]) -> dict[K, list[Run]]:
    """Return the runs by key, keys in ascending order."""
    groups: dict[K, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return {found: groups[found] for found in sorted(groups, key=str)}


def by_cell(runs: Sequence[Run]) -> dict[Cell, list[Run]]:
    """Return the runs of every cell; cells in order of device, architecture and batch size."""
    groups: dict[Cell, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (*run.cell, run.number)):
        groups.setdefault(run.cell, []).append(run)
    return groups
