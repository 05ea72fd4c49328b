"""The Zeus traces: time and mean power of an epoch at batch sizes and power limits, one row each, in CSV.

J. You, J.-W. Chung, M. Chowdhury, "Zeus: understanding and optimizing GPU energy consumption of DNN
training", NSDI 2023. The GPU is in the file's name (`summary_power_v100.csv`); time is in seconds, power in
watts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from server.errors import ConfigError

_ENCODING = "utf-8-sig"  # spreadsheets put a mark before the text
_PREFIX = "summary_power_"
_WORDS = ("dataset", "network", "optimizer")
_NUMBERS = ("batch_size", "power_limit", "time_per_epoch", "average_power")


class Job(NamedTuple):
    """What is trained, on what."""

    gpu: str
    network: str
    dataset: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.network}, {self.dataset}, {self.optimizer}, {self.gpu}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One measured setting of a job, for one epoch."""

    job: Job
    batch_size: int
    power_limit_w: float
    seconds: float
    watts: float

    @property
    def key(self) -> tuple[Job, int, float]:
        """What tells it from others."""
        return self.job, self.batch_size, self.power_limit_w

    @property
    def joules(self) -> float:
        """Energy of an epoch."""
        return self.seconds * self.watts

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {self.power_limit_w:g} W"


def is_zeus(path: Path) -> bool:
    """Tell by its first line whether a file is a Zeus trace."""
    try:
        with path.open(encoding=_ENCODING) as file:
            names = file.readline().strip().split(",")
    except (OSError, UnicodeDecodeError):
        return False
    return set(_WORDS + _NUMBERS) <= set(names)


def read_traces(paths: Sequence[Path]) -> tuple[Setting, ...]:
    """Return the settings of all files. Raises ConfigError as for one, or when two tell the same setting."""
    found: dict[tuple[Job, int, float], Path] = {}
    settings = []
    for path in paths:
        for one in read_zeus(path):
            if (other := found.setdefault(one.key, path)) is not path:
                raise ConfigError(f"{other} and {path} both tell {one.job}, {one}: give one of them")
            settings.append(one)
    return tuple(settings)


def read_zeus(path: Path) -> tuple[Setting, ...]:
    """Return the settings of a file. Raises ConfigError when it is no such file, or a row is unusable."""
    try:
        with path.open(encoding=_ENCODING, newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}") from error
    if not rows or (missing := [name for name in _WORDS + _NUMBERS if name not in rows[0]]):
        wanted = ", ".join(missing if rows else _WORDS + _NUMBERS)
        raise ConfigError(f"{path} is no Zeus trace: it needs rows with the columns {wanted}")
    gpu = path.stem.removeprefix(_PREFIX)
    settings = tuple(_setting(path, gpu, number, row) for number, row in enumerate(rows, start=1))
    _check_unique(path, settings)
    return settings


def _setting(path: Path, gpu: str, number: int, row: Mapping[str, str]) -> Setting:
    values = {name: _value(path, number, row, name) for name in _NUMBERS}
    return Setting(
        job=Job(gpu, *(row[name] for name in ("network", "dataset", "optimizer"))),
        batch_size=int(values["batch_size"]),
        power_limit_w=values["power_limit"],
        seconds=values["time_per_epoch"],
        watts=values["average_power"],
    )


def _value(path: Path, number: int, row: Mapping[str, str], name: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise ConfigError(f"{path}, row {number}: {name} is {row[name]!r}; it must be a number above 0")
    if name == "batch_size" and not value.is_integer():
        raise ConfigError(f"{path}, row {number}: {name} is {row[name]!r}; it must be a whole number")
    return value


def _check_unique(path: Path, settings: tuple[Setting, ...]) -> None:
    seen: set[tuple[Job, int, float]] = set()
    for one in settings:
        if one.key in seen:
            raise ConfigError(f"{path} tells {one.job}, {one} twice: keep one of the rows")
        seen.add(one.key)
