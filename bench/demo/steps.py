"""The steps of the demo. Each shows something, checks it, and fails with what was expected."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.demo.books import Books, batch_limits, clocks_mhz, loaded
from bench.demo.decision_table import DecisionTable
from bench.demo.photographs import PHOTOGRAPHS, TOP, Photograph, classify, encoded
from bench.demo.programs import run_boulton, serving
from bench.demo.stage import DemoFailed, Kind, Stage
from bench.demo.watching import watching
from bench.serving.processes import Server
from protos import boulton_pb2

MODEL = "efficientnet-lite0"
GPU = "v100"
TARGETS = """\
# What the operator wants: prices in any one currency.
slo_p99_ms = 100
price_per_1000_images = 0.001
late_penalty_per_1000_images = 0.001
energy_price_per_kwh = 0.25
"""
CALIBRATION_S = 4.0
CALIBRATION_CONCURRENCY = 4
SHARES_OF_CAPACITY = (0.2, 0.5)


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
    for line in run_boulton(stage, words).splitlines():
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
        rates = _rates(stage, plan, server)
        stage.step("Apply an open-loop load: the governor moves the batch limit")
        decisions = _apply(stage, plan, server, rates, Kind.MEASURED)
    limits = batch_limits(decisions)
    if len(set(limits)) < 2:
        raise DemoFailed(f"the governor left the batch limit at {limits} under load")
    course = ", ".join(map(str, limits))
    stage.found(f"{Kind.MEASURED} {_balance(Books.of(decisions))}; batch limit went {course}")
    return rates


def on_a_simulated_gpu(stage: Stage, plan: Plan, rates: Sequence[float]) -> None:
    """Apply the same load to a simulated GPU, governed and at its default setting; compare."""
    stage.step(f"The same load on a simulated GPU ({GPU}), governed")
    governed = _simulate(stage, plan, rates, ["--targets", str(plan.targets)])
    limits, clocks = batch_limits(governed), clocks_mhz(governed)
    if len(set(limits)) < 2 or len(set(clocks)) < 2:
        raise DemoFailed(f"the governor did not move both: batch limits {limits}, clocks {clocks}")
    stage.found(
        f"{Kind.SIMULATED} batch limit went {', '.join(map(str, limits))}; "
        f"clock went {', '.join(map(str, clocks))} MHz"
    )
    stage.step("The same load on the same simulated GPU at its default setting")
    default = _simulate(stage, plan, rates, ["--targets", str(plan.targets), "--no-govern"])
    _compare(stage, Books.of(governed), Books.of(default))


def _classify(stage: Stage, server: Server, photograph: Photograph) -> None:
    guesses = classify(server.url, MODEL, encoded(photograph))
    said = ", ".join(f"{guess.label} {guess.score:.2f}" for guess in guesses)
    if len(guesses) != TOP or guesses[0].index != photograph.class_index:
        raise DemoFailed(f"{photograph.name} shows {photograph.shows}, the server says: {said}")
    stage.found(f"{Kind.MEASURED} {photograph.name}, {photograph.shows}, through gRPC: {said}")


def _rates(stage: Stage, plan: Plan, server: Server) -> tuple[float, ...]:
    """Find out what this machine can do, and choose the rates of the load from it."""
    report = plan.directory / "capacity.json"
    words = ["load", "--url", server.url, "--model", MODEL, "--closed", str(CALIBRATION_CONCURRENCY)]
    run_boulton(stage, [*words, "--duration", f"{CALIBRATION_S:g}", "--json", str(report)])
    capacity = float(json.loads(report.read_text(encoding="utf-8"))["images_per_s"])
    stage.say(f"{Kind.MEASURED} this machine answers {capacity:.0f} images/s")
    return tuple(float(max(1, math.floor(share * capacity))) for share in SHARES_OF_CAPACITY)


def _simulate(
    stage: Stage, plan: Plan, rates: Sequence[float], flags: Sequence[str]
) -> list[boulton_pb2.Decision]:
    chosen = ["--engine", "simulated", "--gpu", GPU, *flags]
    with serving(stage, "simulated daemon", plan.repository, chosen) as server:
        return _apply(stage, plan, server, rates, Kind.SIMULATED)


def _apply(
    stage: Stage, plan: Plan, server: Server, rates: Sequence[float], kind: Kind
) -> list[boulton_pb2.Decision]:
    """Apply Poisson arrivals, one rate after the other; return the decisions that fell into the load."""
    with watching(server.url, DecisionTable(stage, kind).show) as decisions:
        for number, rate in enumerate(rates):
            words = ["load", "--url", server.url, "--model", MODEL, "--poisson", f"{rate:g}"]
            words += ["--duration", f"{plan.phase_s:g}", "--warmup", "0", "--seed", str(number)]
            run_boulton(stage, words, limit_s=plan.phase_s + 120)
    busy = loaded(decisions)
    if not busy:
        raise DemoFailed("the operator service streamed no decision while the load ran")
    return busy


def _compare(stage: Stage, governed: Books, default: Books) -> None:
    stage.row(
        f"{Kind.SIMULATED} " + "the same load".ljust(16) + "in time    late   joules  mJ/image  revenue/h"
    )
    for name, books in (("governed", governed), ("default setting", default)):
        stage.row(" " * 12 + name.ljust(16) + _account(books))
    if governed.joules is None or default.joules is None:
        raise DemoFailed(f"the simulated GPU reported no energy (source: {default.energy_source})")
    saved = 1 - governed.joules / governed.seconds / (default.joules / default.seconds)
    earned = _per_hour(governed) / _per_hour(default) - 1
    text = f"energy {saved:+.1%} saved, revenue {earned:+.2%} against the default setting"
    if governed.in_time < 0.95 * default.in_time or earned <= 0:
        raise DemoFailed(f"governing did not help: {text}")
    stage.found(f"{Kind.SIMULATED} {text}")


def _account(books: Books) -> str:
    joules = "-" if books.joules is None else f"{books.joules:.0f}"
    each = "-" if books.millijoules_per_image is None else f"{books.millijoules_per_image:.0f}"
    return f"{books.in_time:7d} {books.late:7d} {joules:>8} {each:>9} {_per_hour(books):10.4f}"


def _per_hour(books: Books) -> float:
    return 3600 * books.revenue / books.seconds


def _balance(books: Books) -> str:
    energy = f"{books.joules:.0f} J ({books.energy_source})" if books.joules is not None else "not measured"
    return f"{books.in_time} images in time, {books.late} late, energy {energy}"


def scrape(url: str) -> str:
    """Return what a Prometheus server would read."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own daemon on the loopback
        return str(answer.read().decode("utf-8"))
