"""Run the demo. Exits 0 only if everything that it promises was seen."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from bench.console import make_console
from bench.demo import steps
from bench.demo.control_step import gpu_control
from bench.demo.stage import DemoFailed, Stage
from bench.serving.processes import ServerFailed

PHASE_S = 18.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; return 0, or 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="made anew; default demo-out")
    parser.add_argument("--phase-s", type=float, default=PHASE_S, help="seconds of each phase of load")
    arguments = parser.parse_args(argv)
    stage = Stage(make_console())
    # Ended from outside, the servers that were started are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start_s = time.monotonic()
    try:
        _run(stage, steps.Plan(_fresh(arguments.out), arguments.phase_s))
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


def _run(stage: Stage, plan: steps.Plan) -> None:
    steps.export(stage, plan)
    rates = steps.on_this_machine(stage, plan)
    steps.on_a_simulated_gpu(stage, plan, rates)
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
