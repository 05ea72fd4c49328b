"""A network taken apart on an engine: times, work, roofline and energy, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.layers.cost import LayerCost, best_arithmetic, cost_layers
from bench.layers.energy import SpanMeter
from bench.layers.engines import Timer
from bench.layers.findings import find
from bench.layers.groups import KindCost, by_kind
from bench.layers.metering import Metered, OnStep, Subject, meter_each, meter_whole, unmetered
from bench.layers.roofline import Roofline, measure_roofline
from bench.layers.timed import TimedRun
from optimizer.layers.count import count_layers_of_file
from optimizer.layers.layer import Layer, Totals, add_up
from server.errors import EngineError


@dataclass(frozen=True, slots=True)
class Question:
    """What to find out.

    Args:
        onnx_path: the network.
        engine: what runs it.
        batch: images to a batch.
        threads: CPU threads of one batch.
        repeats: how often the network runs, timed, and as often untimed.
        roofline: the machine's best rates; None: measure them.
        energy_s: for how long each thing is repeated that is metered.
        repeat_layers: whether each layer is repeated alone; else the network's energy is divided by time.
    """

    onnx_path: Path
    engine: str
    batch: int
    threads: int
    repeats: int
    roofline: Roofline | None
    energy_s: float
    repeat_layers: bool


@dataclass(frozen=True, slots=True)
class Study:
    """What was found.

    Args:
        question: what was asked.
        run: the times.
        layers: each executed piece with its work.
        metered: their energy, and the network's.
        totals: of the network's layers.
        roofline: the machine's best rates.
        kinds: the pieces added up by kind.
        findings: what it shows, in sentences.
    """

    question: Question
    run: TimedRun
    layers: tuple[LayerCost, ...]
    metered: Metered
    totals: Totals
    roofline: Roofline
    kinds: tuple[KindCost, ...]
    findings: tuple[str, ...]


def study(
    question: Question, timer: Timer, meter: SpanMeter | None, on_step: OnStep, why_not: str = ""
) -> Study:
    """Take a network apart.

    Args:
        question: what to find out.
        timer: times layers on the engine of the question.
        meter: of the processor that the engine runs on; None: there is no counter.
        on_step: told how far it is.
        why_not: why there is no counter.

    Raises:
        EngineError: the network cannot be run or timed there, and why.
    """
    on_step("timing layers", 0, 1)
    counted = _count(question)
    run = timer(question.onnx_path, question.batch, threads=question.threads, repeats=question.repeats)
    roofline = question.roofline or _roofline(question, counted, timer, on_step)
    roofline = roofline.raised(best_arithmetic(run, counted))
    layers = cost_layers(run, counted, roofline)
    metered = _meter(question, layers, meter, on_step, why_not)
    kinds = by_kind(layers, metered.layers)
    findings = find(layers, metered.layers, kinds)
    return Study(question, run, layers, metered, add_up(counted), roofline, kinds, findings)


def _meter(
    question: Question, layers: Sequence[LayerCost], meter: SpanMeter | None, on_step: OnStep, why_not: str
) -> Metered:
    if meter is None:
        return unmetered(layers, why_not)
    subject = Subject(question.onnx_path, question.engine, question.batch, question.threads)
    if question.repeat_layers:
        return meter_each(subject, layers, meter, question.energy_s, on_step)
    return meter_whole(subject, layers, meter, question.energy_s, on_step)


def _count(question: Question) -> tuple[Layer, ...]:
    try:
        return count_layers_of_file(question.onnx_path, question.batch)
    except ValueError as error:
        raise EngineError(f"{question.onnx_path}: {error}") from error


def _roofline(question: Question, counted: Sequence[Layer], timer: Timer, on_step: OnStep) -> Roofline:
    on_step("measuring the roofline", 0, 1)
    weights = Counter[str]()
    for layer in counted:
        weights.update({tensor.datatype: layer.multiply_adds for tensor in layer.outputs})
    datatype = weights.most_common(1)[0][0] if weights else ""
    return measure_roofline(
        lambda path: timer(path, 1, threads=question.threads, repeats=question.repeats), datatype
    )
