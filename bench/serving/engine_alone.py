"""ONNX Runtime alone: the images/s and the CPU time of one network at one batch size, without any server.

Runs as a process of its own, so that it can be pinned to the cores that the server gets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WARMUP_RUNS = 5


@dataclass(frozen=True, slots=True)
class Alone:
    """What the engine does by itself at one batch size."""

    batch: int
    images_per_s: float
    cpu_us_per_batch: float


def measure_alone(
    onnx_path: Path, batch: int, *, threads: int, seconds: float, cpus: Sequence[int] = ()
) -> Alone:
    """Measure in a fresh process that may use `cpus` alone (empty: all)."""
    command = [sys.executable, "-m", "bench.serving.engine_alone", str(onnx_path), "--batch", str(batch)]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    command += [word for cpu in cpus for word in ("--cpu", str(cpu))]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return Alone(**json.loads(said))


def _measure(onnx_path: Path, batch: int, threads: int, seconds: float) -> Alone:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    dtype = np.uint8 if declared.type == "tensor(uint8)" else np.float32
    feed = {declared.name: np.ones((batch, *declared.shape[1:]), dtype)}
    for _ in range(WARMUP_RUNS):
        session.run(None, feed)
    runs, start_s, cpu_s = 0, time.perf_counter(), time.process_time()
    while (elapsed_s := time.perf_counter() - start_s) < seconds:
        session.run(None, feed)
        runs += 1
    return Alone(batch, runs * batch / elapsed_s, 1e6 * (time.process_time() - cpu_s) / runs)


def main() -> None:
    """Measure once and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("onnx_path", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cpu", type=int, action="append", default=[])
    arguments = parser.parse_args()
    if arguments.cpu:
        os.sched_setaffinity(0, arguments.cpu)
    found = _measure(arguments.onnx_path, arguments.batch, arguments.threads, arguments.seconds)
    print(json.dumps({name: getattr(found, name) for name in Alone.__slots__}))


if __name__ == "__main__":
    main()
