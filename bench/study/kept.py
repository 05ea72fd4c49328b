"""Trainings that were run here, one JSON line each, so that an interrupted study goes on where it stopped."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.study.runs import Run
from optimizer.telemetry import Energy, EnergySource
from server.errors import ConfigError

RUNS = "runs.jsonl"


def keep(folder: Path, run: Run) -> None:
    """Append a run; it is on the disk when this returns. The folder exists."""
    line = json.dumps(asdict(run), default=str) + "\n"
    with (folder / RUNS).open("a+", encoding="utf-8") as file:
        if _cut_short(folder / RUNS):
            file.write("\n")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_kept(folder: Path) -> tuple[Run, ...]:
    """Return the runs of a folder. Raises ConfigError when there are none.

    A line that was cut short, by a kill or a full disk, counts as not there.
    """
    runs = kept_runs(folder)
    if not runs:
        raise ConfigError(f"{folder / RUNS} holds no runs: boulton train-energy --output {folder} makes some")
    return runs


def kept_runs(folder: Path) -> tuple[Run, ...]:
    """Return the runs of a folder, which may hold none."""
    try:
        lines = (folder / RUNS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / RUNS} cannot be read: {error}") from error
    return tuple(run for line in lines if (run := _run(line)) is not None)


def _run(line: str) -> Run | None:
    try:
        table: dict[str, Any] = json.loads(line)
        energy = table["energy"]
        table["energy"] = Energy(energy["joules"], EnergySource(energy["source"]))
        return Run(**table)
    except (ValueError, KeyError, TypeError):
        return None


def _cut_short(path: Path) -> bool:
    """Whether the last line has no end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
