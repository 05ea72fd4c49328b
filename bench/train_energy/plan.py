"""Which trainings a study consists of, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.study.runs import Cell
from server.errors import ConfigError

PLAN = "settings.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How every network is trained: Adam, cross-entropy, a fixed number of epochs.

    Args:
        epochs: over the training images.
        image_size: height and width that the pictures are brought to.
        learning_rate: Adam's, the same for every batch size.
        images: how many training images are used; None: all.
        threads: of the CPU; None: PyTorch's own choice.
    """

    epochs: int
    image_size: int
    learning_rate: float
    images: int | None
    threads: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every network at every batch size on every device, `repeats` times with seeds of their own."""

    networks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    devices: tuple[str, ...]
    repeats: int
    recipe: Recipe

    def runs(self) -> Iterator[tuple[Cell, int]]:
        """Yield cells with seeds: every cell once before any comes again, so that drift spreads evenly."""
        for seed in range(self.repeats):
            for device in self.devices:
                for network in self.networks:
                    for size in self.batch_sizes:
                        yield Cell(device, network, size), seed

    def __len__(self) -> int:
        return self.repeats * len(self.devices) * len(self.networks) * len(self.batch_sizes)


def agree(folder: Path, recipe: Recipe, conditions: dict[str, Any]) -> None:
    """Write how the runs of a folder are made, or check that those in it were made in the same way.

    Args:
        folder: exists.
        recipe: of the runs to come.
        conditions: whatever else one should know, such as the machine; written, not compared.

    Raises:
        ConfigError: the folder holds runs of another recipe, or cannot be written.
    """
    path, wanted = folder / PLAN, asdict(recipe)
    try:
        if not path.exists():
            path.write_text(
                json.dumps({"recipe": wanted, **conditions}, indent=1, default=asdict) + "\n",
                encoding="utf-8",
            )
        there = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be used ({error}): give another --output, or remove it") from error
    if there != wanted:
        raise ConfigError(f"{folder} holds runs made with {_told(there, wanted)}: give another --output")


def _told(there: dict[str, Any], wanted: dict[str, Any]) -> str:
    names: Sequence[str] = [name for name in wanted if there.get(name) != wanted[name]]
    return ", ".join(f"{name} {there.get(name)} (now {wanted[name]})" for name in names)
