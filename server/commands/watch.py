"""Watch the governor at work: setting, revenue, latency and power now, and how they went.

A live view on a terminal; piped, one line a decision.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice

from rich.console import Console
from rich.live import Live

from protos import boulton_pb2 as pb
from server.client.operator import OperatorClient, add_operator_arguments, ask_operator
from server.client.operator_view import HISTORY, OperatorView
from server.errors import ConfigError
from server.logs import escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton watch` takes."""
    parser.add_argument(
        "--count", type=int, metavar="N", help="end after N decisions (default: with the server)"
    )
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Watch until the server ends; 1 when it cannot be reached or refuses. Raises `ConfigError`."""
    if arguments.count is not None and arguments.count < 1:
        raise ConfigError(f"--count must be 1 or more, got {arguments.count}")
    return ask_operator(arguments, lambda operator: _watch(Console(), operator, arguments.count))


def _watch(console: Console, operator: OperatorClient, count: int | None) -> None:
    decisions = islice(operator.watch(), count)
    if console.is_terminal:
        _show(console, operator, decisions)
        return
    for line in plain_lines(decisions):
        print(line, flush=True)


def plain_lines(decisions: Iterable[pb.Decision]) -> Iterator[str]:
    """One line a decision, as the server's log has it."""
    for decision in decisions:
        yield escape(f"{decision.model}: {decision.line}")


def _show(console: Console, operator: OperatorClient, decisions: Iterable[pb.Decision]) -> None:
    view = OperatorView(operator.status(), operator.decisions(HISTORY))
    with Live(view.render(), console=console, auto_refresh=False, screen=False) as live:
        for decision in decisions:
            view.add(decision, operator.status())
            live.update(view.render(), refresh=True)
