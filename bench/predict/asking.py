"""Reading flags into predictors, networks, batches and clocks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from optimizer.layers.count import count_layers_of_file
from optimizer.layers.dataset import DatasetError
from optimizer.layers.fusion import Step, fuse
from optimizer.layers.network import NetworkPrediction, predict_network
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.saved import load_predictor, shipped_predictors
from server.errors import ConfigError

MOST_BATCH, MOST_CLOCK_MHZ = 65536, 10000


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where predictions come from."""
    source = parser.add_mutually_exclusive_group(required=True)
    known = ", ".join(shipped_predictors())
    source.add_argument("--gpu", metavar="NAME", help=f"a predictor that comes with Boulton: {known}")
    source.add_argument("--predictor", type=Path, metavar="FILE", help="one fitted by `boulton calibrate`")


def predictor_from(arguments: argparse.Namespace) -> LayerPredictor:
    """Load the predictor that was asked for. Raises ConfigError."""
    try:
        return load_predictor(arguments.gpu if arguments.gpu is not None else arguments.predictor)
    except DatasetError as error:
        raise ConfigError(str(error)) from error


def steps_of(path: Path) -> tuple[Step, ...]:
    """Read a network's steps, for one image. Raises ConfigError."""
    try:
        steps = fuse(count_layers_of_file(path, 1))
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ConfigError(f"{path} cannot be read as an ONNX network: {error}") from error
    if not steps:
        raise ConfigError(f"{path} computes nothing, so there is nothing to predict")
    return steps


def numbers(most: int) -> Callable[[str], tuple[int, ...]]:
    """Return a reader of whole numbers from 1 to `most`, separated by commas."""

    def read(text: str) -> tuple[int, ...]:
        words = text.split(",")
        if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= most for word in words):
            raise argparse.ArgumentTypeError(f"expected integers from 1 to {most}, as in 1,8, got {text!r}")
        return tuple(sorted({int(word) for word in words}))

    return read


def clocks_for(predictor: LayerPredictor, asked: tuple[int, ...] | None) -> tuple[float, ...]:
    """Return the clocks to predict at: those asked for, else the highest measured. Raises ConfigError."""
    clocks = tuple(map(float, asked or predictor.clocks_mhz[-1:]))
    try:
        predictor.check_clocks(clocks)
    except ValueError as error:
        raise ConfigError(f"--clock: {predictor.provenance['device']}: {error}") from error
    return clocks


def foretell(
    predictor: LayerPredictor, steps: Sequence[Step], batches: Sequence[int], clocks: Sequence[float]
) -> NetworkPrediction:
    """Predict a network. Raises ConfigError for batches that are too far from what was fitted."""
    try:
        return predict_network(predictor, steps, batches, clocks)
    except ValueError as error:
        raise ConfigError(f"--batch: {predictor.provenance['device']}: {error}") from error


def beyond_text(prediction: NetworkPrediction) -> str:
    """Warn of batches larger than any that was fitted; empty where there are none."""
    if not prediction.beyond:
        return ""
    batches = ", ".join(map(str, prediction.beyond))
    return (
        f"beyond what was fitted (batches up to {prediction.largest_batch}), so doubted more, by a rule that "
        f"is assumed: batch {batches}"
    )


def guessed_text(prediction: NetworkPrediction) -> str:
    """Name what was judged without having been measured enough; empty where there is nothing of the kind."""
    if not prediction.guessed:
        return ""
    return f"judged by work and traffic alone, never measured enough: {', '.join(prediction.guessed)}"


def source_line(predictor: LayerPredictor) -> str:
    """Say in a line what the figures rest on."""
    said = predictor.provenance
    kind = "SIMULATED" if predictor.simulated else "fitted to measurements"
    power = "" if predictor.has_power else "; power and energy: not measured"
    return f"{kind}: {said['device']}, {said['engine']}, {said['date']}{power}"
