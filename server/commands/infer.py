"""Classify photographs on a running server.

JPEG and PNG files travel as they are to models that decode them; for others they are decoded here.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.client.client import Classification, ClassScore, OipClient, RemoteModel, RemoteTensor
from server.client.endpoint import ServerRefused, ServerUnreachable, add_endpoint_arguments, endpoint_from
from server.client.pictures import Picture, PictureSender, Pixels, read_picture
from server.errors import ConfigError
from server.logs import escape

EXIT_SERVER = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    pictures: Sequence[Picture]
    result: Classification
    latency_ms: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton infer` takes."""
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG or PNG files")
    add("--model", metavar="NAME", help="which model (default: the only one that is ready)")
    add("--output", metavar="NAME", help="which output holds the scores (default: the first)")
    add("--top", type=_positive, default=5, metavar="K", help="classes to print (default: 5)")
    add("--softmax", action="store_true", help="turn the scores into probabilities")
    add("--timeout-s", type=_seconds, default=30.0, metavar="S", help="time for each call (default: 30)")
    add_endpoint_arguments(parser)
    group = parser.add_argument_group("pictures that are decoded here")
    add = group.add_argument
    add("--resize", type=_positive, metavar="N", help="shorter side before the centre is cut (default: 8/7)")
    add("--scale", type=float, metavar="F", help="floating-point models take (pixel * scale - mean) / std")
    add("--mean", type=_numbers, metavar="F[,F,F]", help="one number or one a channel (default: 0)")
    add("--std", type=_numbers, metavar="F[,F,F]", help="likewise (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Classify and print; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    pictures = [read_picture(path) for path in arguments.images]
    try:
        with OipClient(endpoint_from(arguments), arguments.timeout_s) as client:
            _classify(client, pictures, arguments)
    except (ServerUnreachable, ServerRefused) as error:
        print(f"boulton: {escape(str(error))}", file=sys.stderr)
        return EXIT_SERVER
    return 0


def _classify(client: OipClient, pictures: Sequence[Picture], arguments: argparse.Namespace) -> None:
    model = client.model(arguments.model or _only_model(client))
    output = _output(model, arguments.output)
    k = _classes_wanted(output, arguments.top, softmax=arguments.softmax)
    sender = PictureSender(client, model, output, k, _pixels(arguments))
    for answer in _ask(sender, pictures, model.max_batch):
        _print(answer, arguments.top, softmax=arguments.softmax)
        print(_footer(answer, model))


def _ask(sender: PictureSender, pictures: Sequence[Picture], max_batch: int) -> Iterator[Answer]:
    """Send as many pictures at once as the model takes."""
    size = max(1, max_batch)
    for start in range(0, len(pictures), size):
        batch = pictures[start : start + size]
        began = time.perf_counter()
        result = sender.send(batch)
        yield Answer(batch, result, (time.perf_counter() - began) * 1e3)


def _only_model(client: OipClient) -> str:
    names = client.ready_models()
    if len(names) == 1:
        return names[0]
    if not names:
        raise ServerRefused("no model is ready on this server; name one with --model to see why")
    raise ConfigError(f"the server has several models, choose one with --model: {', '.join(names)}")


def _output(model: RemoteModel, name: str | None) -> RemoteTensor:
    for output in model.outputs:
        if name in (None, output.name):
            return output
    names = ", ".join(output.name for output in model.outputs)
    raise ConfigError(f"model '{model.name}' has no output {name!r}; choose one of {names} with --output")


def _classes_wanted(output: RemoteTensor, top: int, *, softmax: bool) -> int:
    """All scores are needed to turn some of them into probabilities."""
    if min(output.shape, default=1) > 0:
        classes = math.prod(output.shape)
        return classes if softmax else min(top, classes)
    if softmax:
        raise ConfigError(f"output '{output.name}' has a varying number of scores; leave --softmax out")
    return top


def _pixels(arguments: argparse.Namespace) -> Pixels:
    told = {name: getattr(arguments, name) for name in ("resize", "scale", "mean", "std")}
    return Pixels(**{name: value for name, value in told.items() if value is not None})


def _print(answer: Answer, top: int, *, softmax: bool) -> None:
    for picture, scores in zip(answer.pictures, answer.result.images, strict=True):
        print(escape(str(picture.path)))
        values = _probabilities(scores) if softmax else [each.score for each in scores]
        word = "probability" if softmax else "score"
        for each, value in list(zip(scores, values, strict=True))[:top]:
            print(f"  {word} {value:8.4f}  {_label(each)}")


def _label(score: ClassScore) -> str:
    return f"{escape(score.label)} ({score.index})" if score.label else f"class {score.index}"


def _probabilities(scores: Sequence[ClassScore]) -> list[float]:
    """Softmax over all classes of one image."""
    largest = max(each.score for each in scores)
    weights = [math.exp(each.score - largest) for each in scores]
    return [weight / sum(weights) for weight in weights]


def _footer(answer: Answer, model: RemoteModel) -> str:
    count = len(answer.pictures)
    images = "1 image" if count == 1 else f"{count} images in one request"
    version = f" version {answer.result.model_version}" if answer.result.model_version else ""
    return escape(f"{images}, {answer.latency_ms:.1f} ms, {model.name}{version} on {model.platform}")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds greater than 0, got {text!r}")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.5,0.5,0.5, got {text!r}") from None
