"""What the governor costs: the processor time of its thread, as the server's metrics tell it.

A simulated V100 serves a closed loop, so that the grid is a real card's (128 batch sizes, 187 clocks), every
window has traffic, and every second has a decision.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bench.serving import command
from bench.serving.client import Load, measure
from bench.serving.messages import infer_request
from bench.serving.networks import CHW, INPUT, images, write_repository
from bench.serving.processes import Server, ServerFailed, port_in, running
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread
from bench.serving.settings import Settings

MODEL = "small-uint8"
GPU, NETWORK, MAX_BATCH = "v100", "resnet50", 128
CONCURRENCY = 32
AT_MOST_PERCENT = 1.0
TAKES = ("boulton_governor_cpu_seconds_total", "boulton_decisions_total")


def run(settings: Settings, console: Console) -> Result:
    """Serve a load; read the governor's processor time before and after each round."""
    load = Load([infer_request(MODEL, INPUT, images("UINT8", 1, CHW))] * CONCURRENCY, 2.0 * settings.seconds)
    shares, decisions_ms, rates = [], [], []
    with _governed() as (server, metrics_url):
        for round_ in range(settings.rounds):
            console.print(f"  round {round_ + 1} of {settings.rounds}", style="dim")
            before = _read(metrics_url)
            measured = measure(server, load)
            cpu_s, decisions = (now - then for now, then in zip(_read(metrics_url), before, strict=True))
            shares.append(1e2 * cpu_s / max(1.0, decisions))  # a decision a second
            decisions_ms.append(1e3 * cpu_s / max(1.0, decisions))
            rates.append(measured.requests_per_s)
    figures = [
        Figure("requests answered", Spread.of(rates), "requests/s"),
        Figure("processor time of a decision, with sensing and acting", Spread.of(decisions_ms), "ms"),
        Figure("of a core, at a decision a second", Spread.of(shares), "%", at_most=AT_MOST_PERCENT),
    ]
    conditions = (
        f"simulated {GPU}, {NETWORK}, batches up to {MAX_BATCH}; closed loop, concurrency {CONCURRENCY}",
        "the thread's processor time (CLOCK_THREAD_CPUTIME_ID), from the metrics port",
    )
    return Result("governor", "What the governor costs", figures, conditions)


@contextmanager
def _governed() -> Iterator[tuple[Server, str]]:
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready.json")
        words = ["--repository", str(write_repository(Path(directory))), "--model", MODEL, "--port", "0"]
        words += ["--metrics-port", "0", "--operator-port", "0", "--state-dir", str(Path(directory, "state"))]
        words += ["--engine", "simulated", "--gpu", GPU, "--simulated-model", NETWORK]
        words += ["--max-batch", str(MAX_BATCH), "--ready-file", str(ready)]
        program = [sys.executable, "-m", "server.cli", "serve", *words]
        with running("boulton", program, port_in(ready)) as server:
            port = json.loads(ready.read_text(encoding="utf-8"))["metrics_port"]
            yield server, f"http://127.0.0.1:{port}/metrics"


def _read(url: str) -> tuple[float, ...]:
    with urllib.request.urlopen(url, timeout=10.0) as answer:  # noqa: S310  # our own, on loopback
        text = answer.read().decode()
    return tuple(_value(text, name) for name in TAKES)


def _value(text: str, name: str) -> float:
    found = re.search(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ServerFailed(f"the metrics lack {name}")
    return float(found.group(1))


if __name__ == "__main__":
    command.main(run, __doc__)
