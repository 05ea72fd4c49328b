"""What a tournament plays: its cells, who takes part, and the settings that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path

OURS = "boulton"
DEFAULT = "default"
STEADY = ("steady-low", "steady-high")
CHANGING = ("diurnal", "bursty", "step-x10", "flash-crowd")
TRAFFICS = STEADY + CHANGING
SLOS = ("tight", "medium", "loose")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One match: a GPU (a shipped profile's name or the path of another), a network, a traffic and an SLO."""

    gpu: str
    model: str
    traffic: str
    slo: str

    def __str__(self) -> str:
        return f"{self.gpu_name} {self.model} {self.traffic} {self.slo}"

    @property
    def gpu_name(self) -> str:
        """The GPU without the folder of its profile."""
        return Path(self.gpu).stem

    @property
    def slug(self) -> str:
        """A name for files; profiles of one name in different folders keep apart."""
        gpu = self.gpu
        if not _PLAIN_NAME.fullmatch(gpu):
            gpu = f"{self.gpu_name}-{sha256(gpu.encode()).hexdigest()[:6]}"
        return "__".join((gpu, self.model, self.traffic, self.slo))

    @property
    def steady(self) -> bool:
        """Whether the arrival rate stays what it is."""
        return self.traffic in STEADY


@dataclass(frozen=True, slots=True)
class Settings:
    """What all cells share.

    Args:
        duration_s: simulated time for which images arrive.
        seed: of arrivals, noise and clock-switch delays; the same for all policies of a cell.
        max_batch: the engine's largest batch.
        interval_s: between decisions.
    """

    duration_s: float = 300.0
    seed: int = 0
    max_batch: int = 128
    interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A tournament: every cell is played by every policy."""

    cells: tuple[Cell, ...]
    policies: tuple[str, ...]
    settings: Settings = Settings()

    def __len__(self) -> int:
        return len(self.cells) * len(self.policies)


def make_plan(
    gpus: Sequence[str],
    models_of: Callable[[str], Sequence[str]],
    traffics: Sequence[str],
    slos: Sequence[str],
    policies: Sequence[str],
    settings: Settings,
) -> Plan:
    """Cross the axes. The order is that of the axes as given, GPUs slowest; repetitions count once.

    `models_of` names the networks that are played on a GPU.
    """
    cells = [Cell(gpu, *names) for gpu in gpus for names in product(models_of(gpu), traffics, slos)]
    return Plan(tuple(dict.fromkeys(cells)), tuple(dict.fromkeys(policies)), settings)
