"""The steps of the demo. Each shows something, checks it, and fails with what was expected."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.demo.books import Books, batch_limits, clocks_mhz, loaded
from bench.demo.decision_table import DecisionTable
from bench.demo.photographs import PHOTOGRAPHS, TOP, Photograph, classify, encoded
from bench.demo.programs import Daemon, run_boulton, serving
from bench.demo.stage import DemoFailed, Kind, Stage
from bench.demo.watching import watching
from bench.serving.engine_alone import measure_alone
from protos import boulton_pb2

MODEL = "efficientnet-lite0"
GPU = "v100"
# The profile's network that rests on published measurements stands in for ours: as many batches, longer ones.
SIMULATED_MODEL = "resnet50"
SIMULATED_MAX_BATCH = "256"
TARGETS = """\
# What the operator wants: prices in any one currency.
slo_p99_ms = 100
price_per_1000_images = 0.001
late_penalty_per_1000_images = 0.001
energy_price_per_kwh = 0.25
"""
CALIBRATION_S = 3.0
# The load generator and gRPC want their share of the cores too.
SHARES_OF_CAPACITY = (0.2, 0.4)
LEAST_RATE = 25.0
EXPORT_LIMIT_S = 600.0
PHASE_SLACK_S = 120.0
IDLE_LIMIT_S = 30.0


class GoverningDidNotHelp(DemoFailed):
    """The default setting earned as much, or drew no more power: a few images late by chance suffice."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the demo writes and how long a phase of load is."""

    directory: Path
    phase_s: float

    @property
    def repository(self) -> Path:
        """The model repository."""
        return self.directory / "models"

    @property
    def targets(self) -> Path:
        """The operator's targets."""
        return self.directory / "targets.toml"


def export(stage: Stage, plan: Plan) -> None:
    """Export EfficientNet-Lite0 with its real weights into a fresh repository."""
    stage.step("Export a CNN with its real ImageNet weights")
    plan.targets.write_text(TARGETS, encoding="utf-8")
    words = ["export", MODEL, "--repository", str(plan.repository), "--input", "uint8"]
    for line in run_boulton(stage, words, limit_s=EXPORT_LIMIT_S).splitlines():
        stage.row(line)
    if not (plan.repository / MODEL / "1" / "model.onnx").is_file():
        raise DemoFailed("the export reported success, but the repository has no model.onnx")
    stage.found("EfficientNet-Lite0 exported to ONNX and compared with PyTorch")


def on_this_machine(stage: Stage, plan: Plan) -> tuple[float, ...]:
    """Serve on the CPU, classify photographs, apply a load. Return the rates of the load in images/s."""
    stage.step("Serve it on this machine's CPU")
    flags = ["--targets", str(plan.targets)]
    with serving(stage, "CPU daemon", plan.repository, flags) as server:
        for photograph in PHOTOGRAPHS:
            _classify(stage, server, photograph)
        rates = _rates(stage, plan)
        stage.step("Apply an open-loop load: the governor moves the batch limit")
        decisions = _apply(stage, plan, server, rates, Kind.MEASURED)
    limits = batch_limits(decisions)
    if len(set(limits)) < 2:
        raise DemoFailed(f"the governor left the batch limit at {limits} under load")
    course = ", ".join(map(str, limits))
    stage.found(f"{Kind.MEASURED} {_balance(Books.of(decisions))}; batch limit went {course}")
    return rates


def on_a_simulated_gpu(stage: Stage, plan: Plan, rates: Sequence[float]) -> None:
    """Apply the same load to a simulated GPU, governed and at its default setting; compare.

    Raises `GoverningDidNotHelp`, or what else is not as promised.
    """
    stage.step(f"The same load on a simulated GPU ({GPU}), governed")
    stage.say(
        f"No GPU here: batches take the time and power that a {GPU} would need for {SIMULATED_MODEL}, "
        "fitted to published figures; answers are zeros."
    )
    governed = _simulate(stage, plan, rates, ["--targets", str(plan.targets)])
    limits, clocks = batch_limits(governed), clocks_mhz(governed)
    if len(set(limits)) < 2 or len(set(clocks)) < 2:
        raise DemoFailed(f"the governor did not move both: batch limits {limits}, clocks {clocks}")
    stage.found(
        f"{Kind.SIMULATED} batch limit went {', '.join(map(str, limits))}; "
        f"clock went {', '.join(map(str, clocks))} MHz"
    )
    stage.step("The same load on the same simulated GPU at its default setting")
    default = _simulate(stage, plan, rates, ["--targets", str(plan.targets), "--policy", "fixed"])
    load_s = plan.phase_s * len(rates)
    _compare(stage, Books.of(governed), Books.of(default), load_s)


def _classify(stage: Stage, server: Daemon, photograph: Photograph) -> None:
    guesses = classify(server.url, MODEL, encoded(photograph))
    said = ", ".join(f"{guess.label} {guess.score:.2f}" for guess in guesses)
    if len(guesses) != TOP or guesses[0].index != photograph.class_index:
        raise DemoFailed(f"{photograph.name} shows {photograph.shows}, the server says: {said}")
    stage.found(f"{Kind.MEASURED} {photograph.name}, {photograph.shows}, through gRPC: {said}")


def _rates(stage: Stage, plan: Plan) -> tuple[float, ...]:
    """Find out what this machine can do, and choose the rates of the load from it."""
    threads = len(os.sched_getaffinity(0))
    path = plan.repository / MODEL / "1" / "model.onnx"
    capacity = measure_alone(path, 1, threads=threads, seconds=CALIBRATION_S).images_per_s
    stage.say(f"{Kind.MEASURED} ONNX Runtime alone computes {capacity:.0f} images/s here, {threads} threads")
    rates = tuple(max(LEAST_RATE, round(share * capacity)) for share in SHARES_OF_CAPACITY)
    stage.say(f"The load: Poisson arrivals, {' and then '.join(f'{rate:g}' for rate in rates)} images/s")
    return rates


def _simulate(
    stage: Stage, plan: Plan, rates: Sequence[float], flags: Sequence[str]
) -> list[boulton_pb2.Decision]:
    chosen = ["--engine", "simulated", "--gpu", GPU, "--simulated-model", SIMULATED_MODEL]
    chosen += ["--max-batch", SIMULATED_MAX_BATCH, *flags]
    with serving(stage, "simulated daemon", plan.repository, chosen) as server:
        return _apply(stage, plan, server, rates, Kind.SIMULATED)


def _apply(
    stage: Stage, plan: Plan, server: Daemon, rates: Sequence[float], kind: Kind
) -> list[boulton_pb2.Decision]:
    """Apply Poisson arrivals, one rate after the other; return the decisions that fell into the load."""
    with watching(server.operator_url, DecisionTable(stage, kind).show) as watch:
        for number, rate in enumerate(rates):
            words = ["load", "--url", server.url, "--model", MODEL, "--poisson", f"{rate:g}"]
            words += ["--duration", f"{plan.phase_s:g}", "--warmup", "0", "--seed", str(number)]
            run_boulton(stage, words, limit_s=plan.phase_s + PHASE_SLACK_S)
        if not watch.wait_until_idle(IDLE_LIMIT_S):
            raise DemoFailed(f"the server still had work {IDLE_LIMIT_S:g} s after the load ended")
    busy = loaded(watch.decisions)
    if not busy:
        raise DemoFailed("the operator service streamed no decision while the load ran")
    return busy


def _compare(stage: Stage, governed: Books, default: Books, load_s: float) -> None:
    stage.row(f"{Kind.SIMULATED} {'':16}  images   late  joules  watts  revenue/h")
    for name, books in (("governed", governed), ("default setting", default)):
        stage.row(f"{Kind.SIMULATED} {name:16} {_account(books, load_s)}")
    if governed.watts is None or default.watts is None:
        raise DemoFailed(f"the simulated GPU reported no energy (source: {default.energy_source})")
    saved = 1 - governed.watts / default.watts
    earned = governed.revenue_per_hour(load_s) / default.revenue_per_hour(load_s) - 1
    text = f"governing changed the power by {-saved:+.1%}, the revenue by {earned:+.2%}"
    if saved <= 0 or earned <= 0:
        raise GoverningDidNotHelp(f"governing did not help on the simulated GPU: {text}")
    stage.found(f"{Kind.SIMULATED} {text}, against the default setting")


def _account(books: Books, load_s: float) -> str:
    joules = "-" if books.joules is None else f"{books.joules:.0f}"
    watts = "-" if books.watts is None else f"{books.watts:.1f}"
    return f"{books.in_time:8d} {books.late:6d} {joules:>7} {watts:>6} {books.revenue_per_hour(load_s):10.4f}"


def _balance(books: Books) -> str:
    energy = "not measured" if books.joules is None else f"{books.joules:.0f} J ({books.energy_source})"
    return f"{books.in_time} images in time, {books.late} late, energy {energy}"
