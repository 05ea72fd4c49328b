"""Hold three predictors against whole networks that none was fitted to: `python -m bench.predict.validate`.

The tables have the layout of NeuralPower's, with its own published figures beside ours. Ours, NeuralPower as
published and the Paleo-like model are all fitted to the same small random networks and judged on the same
networks of the zoo.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.console import make_console
from optimizer.layers.dataset import Dataset, DatasetError, load_dataset
from optimizer.layers.fitting import fit_predictor
from optimizer.layers.judging import PUBLISHED, PUBLISHED_NETWORKS, Held, Score, held, judge, ours, plain
from optimizer.layers.neuralpower import fit_neuralpower
from optimizer.layers.paleo import fit_paleo
from optimizer.layers.predictor import LayerPredictor
from server.errors import ConfigError

_NEEDED = ("sklearn", "scipy")
_WHAT = ("run_error", "power_error", "energy_error")
_TARGETS = {"run_error": 0.92, "power_error": 0.95, "energy_error": 0.975}
"""The accuracies that ours is to reach."""


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, judge, print and save. Exits with 2 and a line on what is wrong with the files or lacks here."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict.validate", description=__doc__)
    parser.add_argument("--training", type=Path, required=True, help="dataset of `boulton calibrate`")
    parser.add_argument("--held-out", type=Path, required=True, help="dataset of `boulton calibrate --model`")
    parser.add_argument("--save", type=Path, metavar="OUT", help="JSON")
    arguments = parser.parse_args(argv)
    for module in _NEEDED:
        if find_spec(module) is None:
            parser.error(
                f"this needs the module {module!r}, which is not installed: pip install 'boulton[study]'"
            )
    try:
        training, held_out = load_dataset(arguments.training), load_dataset(arguments.held_out)
        _check_apart(training, held_out)
        predictor = fit_predictor(training)
        result = compare(training, held_out, predictor)
    except (DatasetError, ConfigError) as error:
        parser.error(str(error))
    doubts = held(_judged(held_out), predictor)
    _show(result, training, held_out)
    _show_doubts(doubts)
    if arguments.save is not None:
        report = {**as_json(result, training, held_out), "doubts_of_ours": _as_table(doubts)}
        arguments.save.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def compare(training: Dataset, held_out: Dataset, predictor: LayerPredictor) -> dict[str, Score]:
    """Fit the rivals of ours to what ours was fitted to, and judge all three."""
    rows, judged = _judged(training).rows(), _judged(held_out)
    return {
        "ours": judge(judged, ours(predictor)),
        "NeuralPower": judge(judged, plain(fit_neuralpower(rows))),
        "Paleo-like": judge(judged, plain(fit_paleo(rows))),
    }


def _check_apart(training: Dataset, held_out: Dataset) -> None:
    both = {one.network for one in training.measured} & {one.network for one in held_out.measured}
    if both:
        raise ConfigError(f"held out and trained on: {', '.join(sorted(both))}")


def _judged(dataset: Dataset) -> Dataset:
    """All are judged at the highest clock: the rivals know of no clocks."""
    return dataset.at_clock(dataset.clocks_mhz[-1] if dataset.clocks_mhz else None)


def as_json(result: dict[str, Score], training: Dataset, held_out: Dataset) -> dict[str, Any]:
    """Return everything that the tables show, each network, and where the figures come from."""
    return {
        "simulated": training.simulated,
        "training": {**training.provenance, "runs": len(training.measured)},
        "held_out": {**held_out.provenance, "runs": len(held_out.measured)},
        "published_rmspe": {kind.value: figures for kind, figures in PUBLISHED.items()},
        "published_accuracy": PUBLISHED_NETWORKS,
        "targets": _TARGETS,
        "missed": [what for what, least in _TARGETS.items() if _misses(result["ours"].accuracy(what), least)],
        "models": {
            name: {
                "rmspe": {kind.value: pair for kind, pair in score.layers.items()},
                "accuracy": {what: score.accuracy(what) for what in _WHAT},
                "networks": [asdict(one) for one in score.networks],
            }
            for name, score in result.items()
        },
    }


def _misses(accuracy: float | None, least: float) -> bool:
    """Whether it was measured and fell short."""
    return accuracy is not None and accuracy < least


def _show(result: dict[str, Score], training: Dataset, held_out: Dataset) -> None:
    console = make_console()
    said = "SIMULATED" if training.simulated else "measured"
    layers = Table(title=f"RMSPE by kind of layer, whole networks held out ({said})")
    layers.add_column("layer")
    for name in (*result, "paper: NeuralPower", "paper: Paleo"):
        layers.add_column(f"{name}, time", justify="right")
    for name in ("ours", "NeuralPower", "paper"):
        layers.add_column(f"{name}, power", justify="right")
    for kind, (published, paleo, power) in PUBLISHED.items():
        pairs = [score.layers.get(kind, (None, None)) for score in result.values()]
        row = [_percent(pair[0]) for pair in pairs] + [_percent(published), _percent(paleo)]
        layers.add_row(kind.value, *row, *(_percent(pair[1]) for pair in pairs[:2]), _percent(power))
    console.print(layers)
    networks = Table(title=f"accuracy over whole networks, 1 - RMSPE ({said})")
    for name in ("", *result, "paper: NeuralPower"):
        networks.add_column(name, justify="right")
    for what, figure in zip(_WHAT, PUBLISHED_NETWORKS, strict=True):
        accuracies = [score.accuracy(what) for score in result.values()]
        networks.add_row(what.partition("_")[0], *map(_percent, accuracies), _percent(figure))
    console.print(networks)
    names = sorted({one.network for one in held_out.measured})
    console.print(f"held out: {', '.join(names)}; fitted to {len(training.measured)} runs", highlight=False)


def _show_doubts(doubts: Mapping[str, Held]) -> None:
    table = Table(title="how much lay within what ours states (meant: 68 %, 95 %, 90 %)")
    for name in ("", "measured", "1 deviation", "2 deviations", "90 % band"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in doubts.items():
        shares = ["-" if share is None else f"{share:.0%}" for share in (one.one, one.two, one.band)]
        table.add_row(name, str(one.count), *shares)
    make_console().print(table)


def _as_table(doubts: Mapping[str, Held]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in doubts.items()}


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"


if __name__ == "__main__":
    main()
