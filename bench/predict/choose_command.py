"""Rank networks by what an image costs in energy and what their errors cost: the energy-precision ratio.

M = error^alpha * energy per image, lower is better; alpha 0 looks at energy alone, more weighs accuracy more.
ACCURACIES is a CSV file with the columns network,accuracy (a share, as in 0.7615, or 76.15%); each network is
the ONNX file of that name, or the entry NAME of a repository (NAME/VERSION/model.onnx). With several --gpu it
is said of each network which GPU fits it: a big GPU that has little to do wastes energy.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.console import make_console
from bench.flags import number, whole
from bench.naming import network_name, printable
from bench.output import check_writable, write_text
from bench.predict.accuracies import read_accuracies
from bench.predict.asking import (
    beyond_text,
    clocks_for,
    foretell,
    guessed_text,
    source_line,
    steps_of,
)
from optimizer.layers.choosing import Candidate, Fit, Ranked, fits, rank
from optimizer.layers.dataset import DatasetError
from optimizer.layers.fusion import Step
from optimizer.layers.network import NetworkPrediction
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
    networks = _named(arguments.models)
    predictors = {label: _predictor(name) for name, label in _labels(arguments.gpu).items()}
    clocks = (arguments.clock,) if arguments.clock else None
    predicted = {
        (network, name): foretell(predictor, steps, (arguments.batch,), clocks_for(predictor, clocks))
        for network, steps in networks.items()
        for name, predictor in predictors.items()
    }
    candidates = [_candidate(*which, accuracies, prediction) for which, prediction in predicted.items()]
    slo_s = None if arguments.slo_ms is None else arguments.slo_ms / 1e3
    try:
        ranked = rank(candidates, arguments.alpha, slo_s)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    sources = [source_line(predictor) for predictor in predictors.values()]
    doubts = _doubts(predicted)
    simulated = any(predictor.simulated for predictor in predictors.values())
    said = [one + " (simulated)" * simulated for one in fit_texts(ranked, slo=slo_s is not None)]
    text = json.dumps(
        {"sources": sources, "warnings": doubts, "fits": said, "ranking": [asdict(one) for one in ranked]},
        indent=1,
    )
    if arguments.json == Path("-"):
        print(text)
        return 0
    if arguments.json is not None:
        write_text(arguments.json, text + "\n", "--json")
    _show(ranked, arguments)
    for line in (*said, *sources, *doubts):
        make_console(markup=False).print(printable(line), highlight=False, soft_wrap=True)
    return 0


def _labels(gpus: Sequence[str]) -> dict[str, str]:
    """Map predictors, as they were asked for, to what they are called: two files may have the same name."""
    short = {gpu: Path(gpu).stem if Path(gpu).suffix == ".npz" else gpu for gpu in gpus}
    used = Counter(short.values())
    return {gpu: name if used[name] == 1 else gpu for gpu, name in short.items()}


def _doubts(predicted: Mapping[tuple[str, str], NetworkPrediction]) -> list[str]:
    """Return what should be known of the predictions, each sentence once."""
    beyond = [text for one in predicted.values() if (text := beyond_text(one))]
    guessed = [f"{network}: {guessed_text(one)}" for (network, _), one in predicted.items() if one.guessed]
    return list(dict.fromkeys((*beyond, *guessed)))


def _predictor(name: str) -> LayerPredictor:
    try:
        predictor = load_predictor(name)
    except DatasetError as error:
        raise ConfigError(f"--gpu: {error}") from error
    if not predictor.has_power:
        raise ConfigError(f"--gpu {name}: energy was not measured there, so there is no ratio to rank by")
    return predictor


def _named(models: Sequence[Path]) -> dict[str, tuple[Step, ...]]:
    """Read the networks, by their names."""
    found: dict[str, Path] = {}
    for path in models:
        name = network_name(path)
        if found.setdefault(name, path) != path:
            raise ConfigError(f"{found[name]} and {path} are both called {name}: rename one of them")
    return {name: steps_of(path) for name, path in found.items()}


def _candidate(
    network: str, gpu: str, accuracies: dict[str, float], prediction: NetworkPrediction
) -> Candidate:
    if network not in accuracies:
        known = ", ".join(map(printable, sorted(accuracies))) or "no lines at all"
        raise ConfigError(f"--accuracies has no line for {printable(network)}; it has {known}")
    assert prediction.energy_j is not None, "the predictor has power"  # noqa: S101
    energy_j = float(prediction.energy_j[0, -1]) / prediction.batches[0]
    run_s = float(prediction.run_s[0, -1])
    return Candidate(network, gpu, 1.0 - accuracies[network], energy_j, run_s)


def fit_texts(ranked: Sequence[Ranked], *, slo: bool) -> list[str]:
    """Say in a sentence for each network which GPU fits it; nothing where there is no choice of them."""
    if len({one.candidate.device for one in ranked}) < 2:
        return []
    return [_fit_text(fit, " within the SLO" if slo else "") for fit in fits(ranked)]


def _fit_text(fit: Fit, limit: str) -> str:
    if not fit.within:
        fastest = fit.too_slow[0].candidate
        return (
            f"{fit.network}: no GPU is within the SLO; the fastest, {fastest.device}, takes "
            f"{fastest.run_s * 1e3:.3g} ms"
        )
    best, *others = fit.within
    said = f"{fit.network}: cheapest on {best.candidate.device}{limit}"
    costs = [f"{one.candidate.device} {_times(one)}" for one in others]
    slow = [
        f"{one.candidate.device} ({one.candidate.run_s * 1e3:.3g} ms, {_times(one)} the energy)"
        for one in fit.too_slow
    ]
    said += f"; {', '.join(costs).replace(' ', ' costs ', 1)} the energy" if costs else ""
    return said + (f"; too slow: {', '.join(slow)}" if slow else "")


def _times(one: Ranked) -> str:
    assert one.energy_over_best is not None, "some device is within the limit"  # noqa: S101
    return f"{one.energy_over_best:.2f} times"


def _show(ranked: Sequence[Ranked], arguments: argparse.Namespace) -> None:
    clock = f"{arguments.clock} MHz" if arguments.clock else "the highest clock of each GPU"
    where = f"batch {arguments.batch}, {clock}"
    table = Table(title=f"error^{arguments.alpha:g} * joules an image; lower is better ({where})")
    for title in ("network", "GPU"):
        table.add_column(title)
    for title in ("ratio", "accuracy", "mJ/image", "ms/batch", "over best GPU"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in ranked:
        candidate = one.candidate
        said = "excluded: too slow" if one.excluded else "Pareto" if one.pareto else ""
        table.add_row(
            printable(candidate.network),
            printable(candidate.device),
            f"{one.ratio:.4g}",
            f"{1.0 - candidate.error:.2%}",
            f"{candidate.energy_per_image_j * 1e3:.3g}",
            f"{candidate.run_s * 1e3:.3f}",
            "" if one.energy_over_best is None else f"{one.energy_over_best:.2f}",
            said,
        )
    make_console(markup=False).print(table)
