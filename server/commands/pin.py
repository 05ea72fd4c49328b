"""Hold a setting, whatever the policy would choose; the policy goes on learning."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from server.client.operator import (
    OperatorClient,
    add_operator_arguments,
    ask_operator,
    point_of,
    status_line,
)
from server.errors import ConfigError

_MOST = 2**32 - 1  # what the protocol can say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton pin` takes."""
    add = parser.add_argument
    add("--batch", type=int, metavar="N", help="batch limit in images (default: the present one)")
    add("--clock", type=int, metavar="MHZ", help="SM clock (default: the present one)")
    add("--delay-ms", type=float, metavar="MS", help="how long a batch may wait to grow (default: as now)")
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pin and say what holds; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    axes = {
        "batch_limit": arguments.batch,
        "sm_clock_mhz": arguments.clock,
        "max_delay_ms": arguments.delay_ms,
    }
    given: dict[str, Any] = {name: value for name, value in axes.items() if value is not None}
    if any(value < 0 for value in given.values()):
        raise ConfigError("a setting to be pinned has no negative numbers")
    if any(value > _MOST for name, value in given.items() if name != "max_delay_ms"):
        raise ConfigError("a setting to be pinned has no numbers as large as that")
    return ask_operator(arguments, lambda operator: _pin(operator, given))


def _pin(operator: OperatorClient, given: dict[str, Any]) -> None:
    present = point_of(operator.status().target)
    print(status_line(operator.pin(replace(present, **given))))
