"""Have the policy forget what it learned, also what is kept for the next start."""

from __future__ import annotations

import argparse

from server.client.operator import OperatorClient, add_operator_arguments, ask_operator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton forget` takes."""
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Forget and say so; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    return ask_operator(arguments, _forget)


def _forget(operator: OperatorClient) -> None:
    policy = operator.learned().policy
    operator.forget()
    print(f"the policy {policy} starts anew")
