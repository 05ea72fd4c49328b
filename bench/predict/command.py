"""Predict runtime, power and energy of a network from its ONNX graph, as a whole and layer by layer.

Nothing is run: the layers' shapes are enough, before any training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.table import Table

from bench.console import make_console
from bench.flags import whole
from bench.naming import network_name, printable
from bench.output import check_writable, write_text
from bench.predict.asking import (
    MOST_BATCH,
    MOST_CLOCK_MHZ,
    add_predictor_arguments,
    beyond_text,
    clocks_for,
    foretell,
    guessed_text,
    numbers,
    predictor_from,
    source_line,
    steps_of,
)
from bench.predict.writing import as_json
from optimizer.layers.network import NetworkPrediction
from optimizer.layers.predictor import LayerPredictor

_NONE = "not measured"
_MOST_ROWS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton predict` takes."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="with a dynamic batch; its weights are not needed")
    add_predictor_arguments(parser)
    add("--batch", type=numbers(MOST_BATCH), default=(1,), metavar="N,...", help="batch sizes (default: 1)")
    add("--clock", type=numbers(MOST_CLOCK_MHZ), metavar="MHZ,...", help="SM clocks (default: the highest)")
    add(
        "--layers",
        type=whole(0, 10000),
        default=12,
        metavar="N",
        help="how many layers to list (default: 12)",
    )
    add("--json", type=Path, metavar="OUT", help="write everything as JSON; - is standard output")
    add("--html", type=Path, metavar="OUT", help="write a page with plots")


def run(arguments: argparse.Namespace) -> int:
    """Predict and say. Raises ConfigError."""
    check_writable(arguments.json, "--json")
    check_writable(arguments.html, "--html")
    predictor = predictor_from(arguments)
    clocks = clocks_for(predictor, arguments.clock)
    prediction = foretell(predictor, steps_of(arguments.model), arguments.batch, clocks)
    name = network_name(arguments.model)
    if arguments.html is not None:
        from bench.predict.page import write_page

        write_page(arguments.html, prediction, predictor, name)
    if arguments.json is not None:
        text = as_json(prediction, predictor, name)
        if arguments.json == Path("-"):
            print(text)
            return 0
        write_text(arguments.json, text + "\n", "--json")
    _show(prediction, predictor, name, arguments.layers)
    return 0


def _show(prediction: NetworkPrediction, predictor: LayerPredictor, name: str, layers: int) -> None:
    console = make_console(markup=False)
    console.print(_whole(prediction, name))
    if layers:
        console.print(_by_layer(prediction, layers))
    console.print(source_line(predictor), highlight=False)
    if prediction.beyond:
        console.print(beyond_text(prediction), highlight=False)
    if prediction.guessed:
        console.print(printable(guessed_text(prediction)), highlight=False)


def _whole(prediction: NetworkPrediction, name: str) -> Table:
    table = Table(title=f"{printable(name)}: a batch")
    for title in ("batch", "SM clock MHz", "ms", "+-", "images/s", "W", "J", "images/J"):
        table.add_column(title, justify="right")
    energy, power = prediction.energy_j, prediction.power_w
    for i, j in list(np.ndindex(prediction.run_s.shape))[:_MOST_ROWS]:
        batch, seconds = prediction.batches[i], float(prediction.run_s[i, j])
        clock = f"{prediction.clocks_mhz[j]:.0f}" if prediction.clocks_mhz else "-"
        row = [str(batch), clock, f"{seconds * 1e3:.3f}", f"{prediction.spread[i, j]:.0%}"]
        row.append(f"{batch / seconds:.1f}")
        if energy is None or power is None:
            row += [_NONE] * 3
        else:
            row += [f"{power[i, j]:.1f}", f"{energy[i, j]:.4g}", f"{batch / energy[i, j]:.2f}"]
        table.add_row(*row)
    left_out = prediction.run_s.size - table.row_count
    table.caption = f"and {left_out} more: --json OUT writes all" if left_out else None
    return table


def _by_layer(prediction: NetworkPrediction, count: int) -> Table:
    """List the longest layers of the first batch at the last clock; * marks bottlenecks."""
    clock = f", {prediction.clocks_mhz[-1]:.0f} MHz" if prediction.clocks_mhz else ""
    table = Table(
        title=f"longest layers at batch {prediction.batches[0]}{clock}; * together half of the time"
    )
    for title, side in (("layer", "left"), ("operators", "left"), ("ms", "right"), ("share", "right")):
        table.add_column(title, justify="right" if side == "right" else "left")
    table.add_column("W", justify="right")
    seconds, marked = prediction.seconds[0, -1], prediction.bottlenecks(0, -1)
    watts = None if prediction.watts is None else prediction.watts[0, -1]
    for place in sorted(range(len(seconds)), key=lambda one: -seconds[one])[:count]:
        step = prediction.steps[place]
        table.add_row(
            f"{'*' if place in marked else ' '} {printable(step.name)}",
            printable(step.operators),
            f"{seconds[place] * 1e3:.4f}",
            f"{seconds[place] / prediction.run_s[0, -1]:.1%}",
            _NONE if watts is None else f"{watts[place]:.1f}",
        )
    return table
