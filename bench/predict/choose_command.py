"""Rank networks by what an image costs in energy and what their errors cost: the energy-precision ratio.

M = error^alpha * energy per image, lower is better; alpha 0 looks at energy alone, more weighs accuracy more.
ACCURACIES is a CSV file with the columns network,accuracy (a share, as in 0.7615); each network is the ONNX
file of that name. Several --gpu show which GPU fits which network.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.console import make_console
from bench.flags import number, whole
from bench.output import check_writable
from bench.predict.asking import clocks_for, source_line, steps_of
from optimizer.layers.choosing import Candidate, Ranked, rank
from optimizer.layers.dataset import DatasetError
from optimizer.layers.network import predict_network
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.saved import load_predictor, shipped_predictors
from server.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton choose` takes."""
    known = ", ".join(shipped_predictors())
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL.onnx", help="the networks to choose from")
    add("--accuracies", type=Path, required=True, metavar="FILE", help="CSV: network,accuracy")
    add(
        "--gpu", action="append", required=True, metavar="NAME|FILE", help=f"a predictor: {known}; may repeat"
    )
    add("--batch", type=whole(1, 65536), default=1, metavar="N", help="batch size (default: 1)")
    add("--clock", type=whole(1, 10000), metavar="MHZ", help="SM clock (default: the highest)")
    add("--alpha", type=number(0.0, 100.0, zero=True), default=1.0, help="weight of accuracy (default: 1)")
    add("--slo-ms", type=number(0.0, 1e6), metavar="MS", help="longest batch that is allowed")
    add("--json", type=Path, metavar="OUT", help="write the ranking as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Rank and say. Raises ConfigError."""
    check_writable(arguments.json, "--json")
    accuracies = read_accuracies(arguments.accuracies)
    predictors = {name: _predictor(name) for name in arguments.gpu}
    candidates = [
        _candidate(path, accuracies, name, predictor, arguments)
        for name, predictor in predictors.items()
        for path in arguments.models
    ]
    slo_s = None if arguments.slo_ms is None else arguments.slo_ms / 1e3
    try:
        ranked = rank(candidates, arguments.alpha, slo_s)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    sources = [source_line(predictor) for predictor in predictors.values()]
    text = json.dumps({"sources": sources, "ranking": [asdict(one) for one in ranked]}, indent=1)
    if arguments.json == Path("-"):
        print(text)
        return 0
    _show(ranked, arguments.alpha, sources)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


def read_accuracies(path: Path) -> dict[str, float]:
    """Read the table. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["network"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--accuracies {path} is no CSV with columns network,accuracy: {error}") from error


def _predictor(name: str) -> LayerPredictor:
    try:
        predictor = load_predictor(name)
    except DatasetError as error:
        raise ConfigError(f"--gpu: {error}") from error
    if not predictor.has_power:
        raise ConfigError(f"--gpu {name}: energy was not measured there, so there is no ratio to rank by")
    return predictor


def _candidate(
    path: Path,
    accuracies: dict[str, float],
    name: str,
    predictor: LayerPredictor,
    arguments: argparse.Namespace,
) -> Candidate:
    if path.stem not in accuracies:
        raise ConfigError(f"--accuracies has no line for {path.stem}; it has {', '.join(sorted(accuracies))}")
    clocks = clocks_for(predictor, (arguments.clock,) if arguments.clock else None)
    prediction = predict_network(predictor, steps_of(path), (arguments.batch,), clocks)
    assert prediction.energy_j is not None, "the predictor has power"  # noqa: S101
    energy_j = float(prediction.energy_j[0, -1]) / arguments.batch
    run_s = float(prediction.run_s[0, -1])
    return Candidate(path.stem, Path(name).stem, 1.0 - accuracies[path.stem], energy_j, run_s)


def _show(ranked: Sequence[Ranked], alpha: float, sources: Sequence[str]) -> None:
    table = Table(title=f"error^{alpha:g} * joules an image; lower is better")
    for title in ("network", "GPU"):
        table.add_column(title)
    for title in ("ratio", "accuracy", "mJ/image", "ms/batch", "over best GPU"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in ranked:
        candidate = one.candidate
        said = "excluded: too slow" if one.excluded else "Pareto" if one.pareto else ""
        table.add_row(
            candidate.network,
            candidate.device,
            f"{one.ratio:.4g}",
            f"{1.0 - candidate.error:.2%}",
            f"{candidate.energy_per_image_j * 1e3:.3g}",
            f"{candidate.run_s * 1e3:.3f}",
            f"{one.energy_over_best:.2f}",
            said,
        )
    console = make_console()
    console.print(table)
    for source in sources:
        console.print(source, highlight=False)
