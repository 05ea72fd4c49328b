"""Serve the models of a repository over gRPC, and govern the batch limit and the GPU clock."""

from __future__ import annotations

import argparse

from server.config import add_arguments, settings_from
from server.daemon import run_daemon

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop. Returns 0 after an orderly shutdown. Raises `BoultonError`."""
    return run_daemon(settings_from(arguments))
