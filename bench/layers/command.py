"""See where a CNN's time and energy go, layer by layer, on an engine.

Layers are timed as the engine executes them, several nodes of the graph fused into one where it does so, and
set against the arithmetic and the memory traffic that they need. Energy is printed where it is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.compare.energy import Meter, Meters
from bench.compare.networks import NetworkFile, network_names, obtain_network
from bench.console import make_console
from bench.flags import number, whole
from bench.layers import files, report
from bench.layers.engines import TIMERS, runs_on_gpu, timer_of
from bench.layers.roofline import Roofline
from bench.layers.study import Question, study
from bench.output import check_writable, write_text
from bench.serving.machine import this_machine
from server.errors import ConfigError
from server.exporting.precision.kinds import Precision
from server.exporting.progress import ConsoleProgress

_MOST_ENERGY_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton layers` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a built-in network (boulton export --list) or an ONNX file")
    add("--engine", choices=tuple(TIMERS), default="onnxruntime", help="(default: %(default)s)")
    add("--precision", type=Precision, choices=list(Precision), help=_PRECISION)
    add("--batch", type=whole(1, 4096), default=1, metavar="N", help="images (default: %(default)s)")
    add("--threads", type=whole(1, 1024), default=1, metavar="N", help="CPU threads (default: %(default)s)")
    add("--repeats", type=whole(5, 100_000), default=50, metavar="N", help=_REPEATS)
    add("--device-index", type=whole(0, 1023), default=0, metavar="N", help="the GPU (default: %(default)s)")
    add("--peak-gflops", type=number(0.0, 1e9), metavar="F", help=_PEAK)
    add("--peak-gb-per-s", type=number(0.0, 1e6), metavar="F", help="likewise, bytes to and from memory")
    add("--energy", choices=("by-time", "repeat", "none"), default="by-time", help=_ENERGY)
    add("--energy-s", type=number(0.0, _MOST_ENERGY_S), default=3.0, metavar="S", help=_ENERGY_S)
    add("--top", type=whole(0, 100_000), default=20, metavar="N", help=_TOP)
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add("--csv", type=Path, metavar="FILE", help="write a line for each layer")


_PRECISION = "convert the network (default: float32 of a built-in one, a file as it is)"
_REPEATS = "runs of the network with its layers timed, and as many without (default: %(default)s)"
_PEAK = "the machine's arithmetic at best, with --peak-gb-per-s (default: both are measured on the engine)"
_ENERGY = (
    "of a layer: its part of the network's by time, or each layer repeated alone, which takes --energy-s for "
    "each (default: %(default)s)"
)
_ENERGY_S = "for how long each thing that is metered runs, at least (default: %(default)s)"
_TOP = "show the layers that take most time; 0: all (default: %(default)s)"


def run(arguments: argparse.Namespace) -> int:
    """Take the network apart, print and write what was found. Raises BoultonError where it cannot be."""
    roofline = _stated(arguments)
    for path, flag in ((arguments.json, "--json"), (arguments.csv, "--csv")):
        check_writable(path, flag)
    timer = timer_of(arguments.engine, arguments.device_index)
    machine, console = this_machine(), make_console()
    with TemporaryDirectory() as folder, _energy(arguments) as (meter, why_not):
        network = _network(arguments, Path(folder))
        found = study(_question(arguments, network.path, roofline), timer, meter, _tell, why_not)
    if arguments.json:
        write_text(arguments.json, files.as_json(found, network, machine), "--json")
    if arguments.csv:
        write_text(arguments.csv, files.as_csv(found), "--csv")
    report.show(found, network, console, arguments.top)
    return 0


def _stated(arguments: argparse.Namespace) -> Roofline | None:
    peaks = (arguments.peak_gflops, arguments.peak_gb_per_s)
    if peaks == (None, None):
        return None
    if None in peaks:
        raise ConfigError(
            "a roofline has two slopes: give both --peak-gflops and --peak-gb-per-s, or neither"
        )
    return Roofline(arguments.peak_gflops * 1e9, arguments.peak_gb_per_s * 1e9, "stated")


def _network(arguments: argparse.Namespace, folder: Path) -> NetworkFile:
    ((name, model),) = network_names((arguments.model,)).items()
    return obtain_network(name, model, arguments.precision, folder, ConsoleProgress())


def _question(arguments: argparse.Namespace, path: Path, roofline: Roofline | None) -> Question:
    return Question(
        onnx_path=path,
        engine=arguments.engine,
        batch=arguments.batch,
        threads=arguments.threads,
        repeats=arguments.repeats,
        roofline=roofline,
        energy_s=arguments.energy_s,
        repeat_layers=arguments.energy == "repeat",
    )


@contextmanager
def _energy(arguments: argparse.Namespace) -> Iterator[tuple[Meter | None, str]]:
    """Open the counter of the processor that the engine runs on; where there is none, say why."""
    if arguments.energy == "none":
        yield None, "as asked"
        return
    meters = Meters(arguments.device_index)
    meters.open()
    try:
        meter = meters.of(on_gpu=runs_on_gpu(arguments.engine, arguments.device_index))
        yield meter, "" if meter else "; ".join(meters.notes)
    finally:
        meters.close()


def _tell(step: str, place: int, steps: int) -> None:
    counted = f" ({place + 1} of {steps})" if steps > 1 else ""
    print(f"{step}{counted} ...", file=sys.stderr, flush=True)
