"""What a prediction costs, end to end: `python -m bench.predict.prediction_cost --model resnet152.onnx`.

`boulton predict` is started anew each time, as users do, for all layers at 8 batch sizes and 100 clocks,
which needs a predictor with clocks. Its processor time holds on a machine that others use too; wall time is
beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.flags import whole
from bench.naming import network_name
from bench.serving.machine import this_machine

BATCHES = ",".join(str(2**power) for power in range(8))
CLOCKS = ",".join(str(420 + 10 * number) for number in range(100))
AT_MOST_S = 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one prediction: of the processor, user and system together, and on the wall."""

    processor_s: float
    wall_s: float


def main() -> None:
    """Predict a few times, print and save."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict.prediction_cost", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="MODEL.onnx", help="e.g. a ResNet-152")
    parser.add_argument("--gpu", default="a100", metavar="NAME", help="a shipped predictor (default: a100)")
    parser.add_argument("--runs", type=whole(1, 1000), default=7, metavar="N", help="(default: 7)")
    parser.add_argument("--save", type=Path, metavar="OUT", help="JSON")
    arguments = parser.parse_args()
    machine = this_machine()
    costs = [predict_once(arguments.model, arguments.gpu) for _ in range(arguments.runs)]
    processor_s, wall_s = median(c.processor_s for c in costs), median(c.wall_s for c in costs)
    print(machine)
    print(
        f"{network_name(arguments.model)}, all layers, 8 batches x 100 clocks, {arguments.runs} runs: median "
        f"{processor_s:.2f} s of processor time, {wall_s:.2f} s on the wall; wanted: under {AT_MOST_S:.0f} s"
    )
    if arguments.save is not None:
        said = {"machine": asdict(machine), "model": network_name(arguments.model), "gpu": arguments.gpu}
        said |= {"at_most_s": AT_MOST_S, "processor_s": processor_s, "wall_s": wall_s}
        said |= {"runs": [asdict(cost) for cost in costs]}
        arguments.save.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def predict_once(model: Path, gpu: str) -> Cost:
    """Run the command to its end, everything written to a file. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--gpu", gpu, "--batch", BATCHES, "--clock", CLOCKS]
        command = [sys.executable, "-m", "server.cli", "predict", str(model), *flags]
        before, began_s = _children_s(), time.perf_counter()
        with Path(folder, "out.json").open("wb") as out:
            subprocess.run([*command, "--json", "-"], check=True, stdout=out)
        return Cost(_children_s() - before, time.perf_counter() - began_s)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
