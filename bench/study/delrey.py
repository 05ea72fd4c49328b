"""The data of del Rey et al., SEAA 2023: one row a training, in Parquet or CSV.

S. del Rey, S. Martinez-Fernandez, L. Cruz, X. Franch, "Do DL models and training environments have an impact
on energy consumption?". Energy is the trapezoid of the board's power, read once a second; the column
`energy (MJ)` tells it in megajoules. The card that comes with the data says gigajoules: power times duration
shows that it is wrong, and `bench.study.quality` checks it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.study.runs import Run
from optimizer.telemetry import Energy, EnergySource
from server.errors import ConfigError

ENERGY_MJ = "energy (MJ)"
_J_PER_MJ = 1e6
_S_PER_H = 3600.0
_VENDOR = "NVIDIA GeForce "
_NUMBERS = (
    *("run", "training duration (h)", "gpu usage (%)", "average power draw (W)", "max power limit (W)"),
    *(ENERGY_MJ, "batch size", "GFLOPs", "accuracy", "trained epochs", "total seen images", "f1-score"),
)
_COLUMNS = ("architecture", "gpu model", *_NUMBERS)
_WHOLE = ("run", "batch size", "trained epochs", "total seen images")
_POSITIVE = ("training duration (h)", "average power draw (W)", ENERGY_MJ, "batch size", "total seen images")


def read_delrey(path: Path) -> tuple[Run, ...]:
    """Return the trainings of a file. Raises ConfigError when it is no such file, or a row is unusable."""
    rows = _rows(path)
    _check_columns(path, rows)
    return tuple(_run(path, number, row) for number, row in enumerate(rows, start=1))


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return list(csv.DictReader(file))
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as Parquet or, ending in .csv, as CSV: {error}") from error


def _check_columns(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise ConfigError(f"{path} holds no rows: give the data set with one row a training")
    if missing := [name for name in _COLUMNS if name not in rows[0]]:
        raise ConfigError(f"{path} has no column {', '.join(missing)}; it has {', '.join(rows[0])}")


def _run(path: Path, number: int, row: Mapping[str, Any]) -> Run:
    values = {name: _value(path, number, row, name) for name in _NUMBERS}
    return Run(
        gpu=str(row["gpu model"]).removeprefix(_VENDOR),
        architecture=str(row["architecture"]),
        batch_size=int(values["batch size"]),
        number=int(values["run"]),
        images=int(values["total seen images"]),
        epochs=int(values["trained epochs"]),
        duration_s=values["training duration (h)"] * _S_PER_H,
        energy=Energy(values[ENERGY_MJ] * _J_PER_MJ, EnergySource.NVML_POWER),
        f1=values["f1-score"],
        accuracy=values["accuracy"],
        gigaflops=values["GFLOPs"],
        gpu_use=values["gpu usage (%)"] / 100.0,
        power_w=values["average power draw (W)"],
        power_limit_w=values["max power limit (W)"],
    )


def _value(path: Path, number: int, row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0.0 or (value == 0.0 and name in _POSITIVE):
        least = "more than 0" if name in _POSITIVE else "0 or more"
        raise ConfigError(f"{path}, row {number}: {name} is {row[name]!r}; it must be a number, {least}")
    if name in _WHOLE and not value.is_integer():
        raise ConfigError(f"{path}, row {number}: {name} is {row[name]!r}; it must be a whole number")
    return value
