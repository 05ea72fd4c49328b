"""What building EfficientNet-Lite0 for four kinds of GPU takes, and starting again from what was kept.

    python -m bench.engines.builds [--rounds N] [--save]

`boulton build --rtx` is started anew each time, as users do, so that Python's start and the loading of
TensorRT-RTX are part of every figure: once on an empty folder and once more on what the first one left there.
One plan serves the four kinds; then each has a build of its own. No GPU takes part: what loading a plan onto
one takes is not in these figures. The bounds are on processor time, which others on the machine do not
lengthen; time on the wall is beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.table import Table

from bench.compare.networks import obtain_network
from bench.console import make_console
from bench.flags import whole
from bench.serving.machine import this_machine
from server.engines.tensorrt.toolkit import TENSORRT_RTX, load_toolkit
from server.errors import BoultonError
from server.exporting.precision.kinds import Precision
from server.exporting.progress import ConsoleProgress

NETWORK = "efficientnet-lite0"
CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
BATCHES = "1,8,32"
BUILD_S = 10.0
"""Bound on building for all of `CAPABILITIES`."""
AGAIN_S = 1.0
"""Bound on a start that finds everything kept."""

RESULTS = Path(__file__).parents[1] / "results"
EXIT_ERROR = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one command: on the wall, and of the processor, user and system together."""

    wall_s: float
    processor_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One command, repeated.

    Args:
        name: `build` or `again`.
        capabilities: for which kinds of GPU.
        at_most_s: the bound on its median processor time.
        costs: of each round.
    """

    name: str
    capabilities: tuple[str, ...]
    at_most_s: float
    costs: tuple[Cost, ...]

    @property
    def wall_s(self) -> float:
        """The median."""
        return median(cost.wall_s for cost in self.costs)

    @property
    def processor_s(self) -> float:
        """The median."""
        return median(cost.processor_s for cost in self.costs)

    @property
    def met(self) -> bool:
        """Whether it keeps to its bound."""
        return self.processor_s < self.at_most_s


def measure(model: Path, rounds: int) -> Iterator[Step]:
    """Build for all kinds together and for each by itself, and start again each time.

    Raises:
        CalledProcessError: a command failed.
    """
    for capabilities in (CAPABILITIES, *((name,) for name in CAPABILITIES)):
        pairs = [_built_and_again(model, capabilities) for _ in range(rounds)]
        first, second = zip(*pairs, strict=True)
        yield Step("build", capabilities, BUILD_S, first)
        yield Step("again", capabilities, AGAIN_S, second)


def _built_and_again(model: Path, capabilities: Sequence[str]) -> tuple[Cost, Cost]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--rtx", "--for", ",".join(capabilities), "--batches", BATCHES, "--output", folder]
        command = [sys.executable, "-m", "server.cli", "build", str(model), *words]
        first = cost_of(command)
        kept = {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
        second = cost_of(command)
        if {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()} != kept:
            raise RuntimeError("the second start built again what the first one had kept")
        return first, second


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command to its end. Raises CalledProcessError when it fails."""
    before_s, began_s = _children_s(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Cost(time.perf_counter() - began_s, _children_s() - before_s)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and save where that was asked for; 1 when a bound was missed, 2 when nothing ran."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines.builds", description=__doc__)
    parser.add_argument("--rounds", type=whole(1, 1000), default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    given = parser.parse_args(arguments)
    machine = this_machine()
    console = make_console()
    try:
        toolkit = load_toolkit(TENSORRT_RTX)
        with tempfile.TemporaryDirectory() as folder:
            progress = ConsoleProgress()
            network = obtain_network(NETWORK, NETWORK, Precision.FP32, Path(folder), progress)
            steps = list(measure(network.path, given.rounds))
    except (BoultonError, subprocess.CalledProcessError) as error:
        print(f"bench.engines.builds: {error}", file=sys.stderr)
        return EXIT_ERROR
    versions = f"{toolkit.name} {toolkit.version}"
    console.print(f"{machine}\n{versions}; {NETWORK} in FP32, batches {BATCHES}", highlight=False)
    console.print(_table(steps))
    if given.save:
        now = datetime.now(UTC)
        report = {
            "date": now.isoformat(timespec="seconds"),
            "machine": asdict(machine),
            "toolkit": versions,
            "network": NETWORK,
            "sha256": network.sha256,
            "batches": BATCHES,
            "steps": [_kept(step) for step in steps],
        }
        path = RESULTS / f"engine-builds-{now:%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        console.print(f"kept in {path}")
    return int(not all(step.met for step in steps))


def _kept(step: Step) -> dict[str, object]:
    return asdict(step) | {"wall_s": step.wall_s, "processor_s": step.processor_s, "met": step.met}


def _table(steps: Sequence[Step]) -> Table:
    table = Table(title="Whole commands, medians over rounds (s)")
    for heading in ("for", "step"):
        table.add_column(heading)
    for heading in ("processor", "target", "", "wall", "longest wall"):
        table.add_column(heading, justify="right")
    for step in steps:
        longest_s = max(cost.wall_s for cost in step.costs)
        figures = f"{step.processor_s:.2f}", f"{step.at_most_s:.0f}", "met" if step.met else "missed"
        wall = f"{step.wall_s:.2f}", f"{longest_s:.2f}"
        table.add_row(" ".join(step.capabilities), step.name, *figures, *wall)
    return table


if __name__ == "__main__":
    sys.exit(main())
