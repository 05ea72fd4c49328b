"""The comparison as JSON, with every turn, and as CSV, a line a cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.compare.agreement import Agreement
from bench.compare.conditions import Conditions
from bench.compare.estimates import Estimate
from bench.compare.records import as_json
from bench.compare.summary import Line, Ratio, Verdict, noisy_share

COLUMNS = (
    "network", "precision", "engine", "batch", "on_gpu", "turns", "coverage",
    "p50_ms", "p50_low_ms", "p50_high_ms", "p99_ms",
    "images_per_s", "images_per_s_low", "images_per_s_high", "power_w", "idle_w",
    "joules_per_image", "joules_per_image_low", "joules_per_image_high", "images_per_joule", "energy_source",
    "speed", "speed_low", "speed_high", "thrift", "thrift_low", "thrift_high",
    "host_peak_mib", "gpu_mib", "start_s", "build_s", "settled", "halves_apart", "failure",
)  # fmt: skip


def write_json(
    path: Path,
    lines: Sequence[Line],
    found: Sequence[Verdict],
    missing: Mapping[str, str],
    conditions: Conditions,
    agreed: Sequence[Agreement] = (),
) -> None:
    """Write everything; what was not measured is null, and `against` is empty without an earlier run."""
    noisy, told = noisy_share(lines)
    report = {
        "conditions": {**asdict(conditions), "method": conditions.method},
        "too_noisy": noisy > 0,
        "noisy_cells": {"noisy": noisy, "of": told},
        "verdicts": [_finding(verdict) for verdict in found],
        "missing_engines": dict(missing),
        "against": [asdict(one) | {"verdict": one.verdict.value} for one in agreed],
        "cells": [_row(line) | {"record": as_json(line.record)} for line in lines],
    }
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def _finding(verdict: Verdict) -> dict[str, Any]:
    """Return what is said of two engines; figures of different runs have no ratio."""
    compared = asdict(verdict.ratio) if verdict.ratio.side_by_side else None
    return asdict(verdict) | {"ratio": compared}


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """Write a line a cell; what was not measured is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_row(line) for line in lines)


def _row(line: Line) -> dict[str, Any]:
    subject, start = line.cell.subject, line.record.start
    row = {
        "network": subject.network,
        "precision": subject.precision,
        "engine": subject.engine,
        "batch": line.cell.batch,
        "turns": len(line.record.turns),
        "coverage": line.p50_ms.coverage if line.p50_ms else None,
        "p99_ms": line.p99_ms,
        "power_w": line.power_w.value if line.power_w else None,
        "idle_w": line.record.idle_w,
        "images_per_joule": line.images_per_joule.value if line.images_per_joule else None,
        "energy_source": "+".join(line.sources) or "not measured",
        "halves_apart": line.apart,
        "failure": line.record.failure,
        **_three("p50{}_ms", line.p50_ms),
        **_three("images_per_s{}", line.images_per_s),
        **_three("joules_per_image{}", line.joules_per_image),
        **_three("speed{}", _of(line.speed)),
        **_three("thrift{}", _of(line.thrift)),
    }
    for name in ("on_gpu", "host_peak_mib", "gpu_mib", "start_s", "build_s", "settled"):
        row[name] = None if start is None else getattr(start, name)
    return {column: row[column] for column in COLUMNS}


def _of(ratio: Ratio | None) -> Estimate | None:
    return ratio.estimate if ratio and ratio.side_by_side else None


def _three(pattern: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((pattern.format(end) for end in ("", "_low", "_high")), values, strict=True))
