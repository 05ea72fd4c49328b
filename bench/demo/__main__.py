"""Run the demo. Exits 0 only if everything that it promises was seen."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from bench.console import make_console
from bench.demo import steps
from bench.demo.control_step import gpu_control
from bench.demo.pace import PHASE_S, Pace
from bench.demo.stage import DemoFailed, Stage
from bench.serving.processes import ServerFailed

_PHASE = f"seconds of each phase of load; default {PHASE_S:g}, or less on a busy machine"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; return 0, or 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="made anew; default demo-out")
    parser.add_argument("--phase-s", type=float, help=_PHASE)
    arguments = parser.parse_args(argv)
    stage = Stage(make_console())
    # Ended from outside, the servers that were started are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start_s = time.monotonic()
    try:
        _run(stage, steps.Plan(_fresh(arguments.out), PHASE_S), arguments.phase_s, start_s)
    except (DemoFailed, ServerFailed) as error:
        stage.failed(str(error))
        return 1
    except KeyboardInterrupt:
        stage.failed("interrupted")
        return 130
    except grpc.RpcError as error:
        stage.failed(f"the server refused a request: {error}")
        return 1
    stage.conclude()
    stage.say(f"took {time.monotonic() - start_s:.0f} s; what was written is in {arguments.out}")
    return 0


def _run(stage: Stage, plan: steps.Plan, asked_s: float | None, start_s: float) -> None:
    steps.export(stage, plan)
    pace = Pace(time.monotonic() - start_s, asked_s)

    def paced(phases: int) -> steps.Plan:
        phase_s = pace.phase_s(time.monotonic() - start_s, phases)
        if said := pace.said(phase_s):
            stage.say(said)
        return replace(plan, phase_s=phase_s)

    rates = steps.on_this_machine(stage, paced(6))
    try:
        steps.on_a_simulated_gpu(stage, paced(4), rates)
    except steps.GoverningDidNotHelp as found:
        stage.say(f"{found}. Images that this machine was too busy to answer in time can do that: once more.")
        steps.on_a_simulated_gpu(stage, paced(4), rates)
    gpu_control(stage)


def _fresh(directory: Path) -> Path:
    """Make our directory anew; never remove what the demo did not make."""
    marker = directory / ".boulton-demo"
    if directory.exists() and any(directory.iterdir()) and not marker.exists():
        raise DemoFailed(f"{directory} exists and was not made by the demo; name another with --out")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    marker.touch()
    return directory


if __name__ == "__main__":
    sys.exit(main())
