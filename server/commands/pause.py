"""Have the policy decide nothing and learn nothing until `boulton resume`; the setting stays."""

from __future__ import annotations

import argparse

from server.client.operator import add_operator_arguments, ask_operator, status_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton pause` takes."""
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and say what holds; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    return ask_operator(arguments, lambda operator: print(status_line(operator.pause())))
