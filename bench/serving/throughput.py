"""A real network under closed-loop load: EfficientNet-Lite0 served, against ONNX Runtime alone.

The cores are divided: the first half runs the server, or ONNX Runtime alone, with one thread a core; the load
generator has the rest. So the server's own work (gRPC, parsing, batching) comes out of the same cores that
ONNX Runtime has for itself when alone, and the generator's does not. On a single core both share it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.serving import command
from bench.serving.client import Load, measure
from bench.serving.engine_alone import measure_alone
from bench.serving.messages import infer_request
from bench.serving.networks import images
from bench.serving.processes import Server, ServerFailed
from bench.serving.questions import first_input
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, in_turns, ratio
from bench.serving.settings import Settings
from bench.serving.subjects import boulton

MODEL = "efficientnet-lite0"
BATCHES = (1, 2, 4, 8, 16, 32)
CONCURRENCY = 32
AT_LEAST = 0.90


def run(settings: Settings, console: Console) -> Result:
    """Export the network, find the batch size that ONNX Runtime likes best, then measure both in turns."""
    engine_cpus, client_cpus = divide_cores(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as directory:
        path = _export(Path(directory), console)
        batch = _best_batch(path, engine_cpus, settings, console)
        with boulton(Path(directory), [MODEL], threads=len(engine_cpus), cpus=engine_cpus) as server:
            alone = partial(_alone, path, batch, engine_cpus, settings.seconds)
            with pinned_to(client_cpus):
                found = in_turns(
                    {"alone": alone, "served": partial(_served, server, settings.seconds)},
                    settings.rounds,
                    console,
                )
    figures = [
        Figure(f"ONNX Runtime alone, batch {batch}", Spread.of(found["alone"]), "images/s"),
        Figure("Boulton, single UINT8 images", Spread.of(found["served"]), "images/s"),
        Figure("EfficientNet-Lite0, served of alone", ratio(found["served"], found["alone"]), "x", AT_LEAST),
    ]
    conditions = (
        f"server, and ONNX Runtime alone: cores {engine_cpus}, {len(engine_cpus)} engine thread(s)",
        f"load generator: cores {client_cpus}",
        f"closed loop, concurrency {CONCURRENCY}, raw UINT8, normalised in the graph",
    )
    return Result("throughput", "EfficientNet-Lite0 against ONNX Runtime alone", figures, conditions)


def divide_cores(cores: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the cores of the server and those of the load generator; a single core goes to both."""
    half = max(1, len(cores) // 2)
    return list(cores[:half]), list(cores[half:] or cores)


@contextmanager
def pinned_to(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this process, and the threads that it starts, on `cpus`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _export(repository: Path, console: Console) -> Path:
    console.print(f"  exporting {MODEL}", style="dim")
    words = ["export", MODEL, "--repository", str(repository), "--input", "uint8"]
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerFailed(f"boulton export exited {done.returncode}: {done.stderr[-2000:]}")
    return repository / MODEL / "1" / "model.onnx"


def _alone(path: Path, batch: int, cpus: Sequence[int], seconds: float) -> float:
    return measure_alone(path, batch, threads=len(cpus), seconds=seconds, cpus=cpus).images_per_s


def _served(server: Server, seconds: float) -> float:
    message = infer_request(MODEL, first_input(server.url, MODEL), images("UINT8", 1))
    return measure(server, Load([message] * CONCURRENCY, seconds)).images_per_s


def _best_batch(path: Path, cpus: Sequence[int], settings: Settings, console: Console) -> int:
    rates = {batch: _alone(path, batch, cpus, min(3.0, settings.seconds)) for batch in BATCHES}
    console.print(
        "  alone: " + ", ".join(f"batch {n}: {rate:.0f}/s" for n, rate in rates.items()), style="dim"
    )
    return max(rates, key=lambda batch: rates[batch])


if __name__ == "__main__":
    command.main(run, __doc__)
