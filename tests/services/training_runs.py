"""Made-up trainings for tests: small, and with known answers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.study.runs import Run
from optimizer.telemetry import NOT_MEASURED, Energy, EnergySource

IMAGES = 1000
POWER_W = 100.0


def make_run(
    gpu: str = "RTX 3070",
    architecture: str = "vgg16",
    number: int = 0,
    *,
    joules_per_image: float | None = 1.0,
    batch_size: int = 32,
    f1: float = 0.9,
    gpu_use: float | None = 0.9,
    gigaflops: float | None = 1.0,
    seconds: float | None = None,
) -> Run:
    """A training of 1000 images at 100 W, unless `seconds` says how long it took."""
    joules = None if joules_per_image is None else joules_per_image * IMAGES
    energy = NOT_MEASURED if joules is None else Energy(joules, EnergySource.NVML_POWER)
    duration_s = seconds if seconds is not None else (joules or POWER_W) / POWER_W
    return Run(
        *(gpu, architecture, batch_size, number, IMAGES, 10, duration_s, energy, f1, f1),
        gigaflops=gigaflops,
        gpu_use=gpu_use,
        power_w=POWER_W,
        power_limit_w=200.0,
    )


def delrey_row(run: Run, **changes: object) -> dict[str, Any]:
    """The row in which the data of del Rey et al. would tell a training."""
    return {
        "training environment": "Local",
        "architecture": run.architecture,
        "run": run.number,
        "training duration (h)": run.duration_s / 3600.0,
        "gpu model": f"NVIDIA GeForce {run.gpu}",
        "gpu usage (%)": (run.gpu_use or 0.0) * 100.0,
        "average power draw (W)": run.power_w,
        "max power limit (W)": run.power_limit_w,
        "energy (MJ)": (run.energy.joules or 0.0) / 1e6,
        "batch size": run.batch_size,
        "GFLOPs": run.gigaflops,
        "accuracy": run.accuracy,
        "trained epochs": run.epochs,
        "total seen images": run.images,
        "f1-score": run.f1,
    } | changes


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows of the same columns."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
