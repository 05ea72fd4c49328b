"""What every benchmark does around its measurement: read the flags, say where it runs, show, save."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import grpc
from rich.console import Console

from bench.console import make_console
from bench.neighbours import Neighbours
from bench.serving import settings
from bench.serving.machine import this_machine
from bench.serving.processes import ServerFailed
from bench.serving.report import Result, save, show
from server.memory import keep_pages

BUSY_LOAD = 0.5
Benchmark = Callable[[settings.Settings, Console], Result]


def run(
    benchmarks: Sequence[Benchmark], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Run benchmarks one after the other. Return 0, or 1 when one could not be measured.

    A missed target is a finding, not a failure: it is shown and saved, and the exit code stays 0.
    """
    keep_pages()  # as in the server: the client's own cost of large messages shall not hide the server's
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    console = make_console()
    machine = this_machine()
    console.print(str(machine), style="dim", highlight=False)
    if machine.load_before > BUSY_LOAD:
        console.print("The machine is not idle: the figures are disturbed.", style="yellow")
    chosen = settings.from_arguments(arguments)
    with Neighbours() as neighbours:
        found = [result for benchmark in benchmarks if (result := _attempt(benchmark, chosen, console))]
    console.print(str(neighbours.looks), style="dim", highlight=False)
    if arguments.save and found:
        console.print(f"saved {save(found, machine, neighbours.looks)}")
    _conclude(found, console)
    return 0 if len(found) == len(benchmarks) else 1


def main(benchmark: Benchmark, description: str | None) -> None:
    """Run one benchmark as a program."""
    sys.exit(run([benchmark], argparse.ArgumentParser(description=description)))


def _attempt(benchmark: Benchmark, chosen: settings.Settings, console: Console) -> Result | None:
    try:
        result = benchmark(chosen, console)
    except (ServerFailed, grpc.RpcError) as error:
        console.print(f"could not be measured: {error}", style="red", markup=False)
        return None
    show(result, console)
    return result


def _conclude(found: Sequence[Result], console: Console) -> None:
    judged = [figure for result in found for figure in result.figures if figure.reached is not None]
    missed = [name for result in found for name in result.missed]
    console.print(f"{len(judged) - len(missed)} of {len(judged)} targets reached", style="bold")
    for name in missed:
        console.print(f"  missed: {name}", style="red")
