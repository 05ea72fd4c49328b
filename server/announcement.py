"""Telling the world that the server is ready: a line for people, a file for scripts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from server.errors import ConfigError
from server.files import write_whole
from server.standard_streams import give_up_stdout
from server.transport.grpc_server import bracketed


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a ready server listens; `metrics_port` is None without metrics."""

    host: str
    grpc_port: int
    metrics_port: int | None
    operator_port: int

    @property
    def line(self) -> str:
        """One line for people."""
        host = bracketed(self.host)
        metrics = "none" if self.metrics_port is None else f"http://{host}:{self.metrics_port}/metrics"
        return f"ready: gRPC on {host}:{self.grpc_port}, metrics on {metrics}"

    def tell(self) -> None:
        """Say the line on stdout. Raises OSError where nothing can be written there; nobody tries again."""
        try:
            print(self.line, flush=True)
        except OSError:
            give_up_stdout()
            raise

    def write_to(self, file: Path) -> None:
        """Write ports and pid as JSON, whole or not at all. Raises `ConfigError`."""
        facts = {
            "grpc_port": self.grpc_port,
            "metrics_port": self.metrics_port,
            "operator_port": self.operator_port,
            "pid": os.getpid(),
        }
        try:
            write_whole(file, json.dumps(facts) + "\n")
        except OSError as error:
            raise ConfigError(f"--ready-file {file} cannot be written: {error.strerror}") from error


def withdraw_own(file: Path) -> None:
    """Remove this server's announcement, and leave that of another server which took its place."""
    try:
        announced = json.loads(file.read_text(encoding="utf-8"))["pid"]
    except (OSError, ValueError, KeyError, TypeError):  # never made, or no announcement
        return
    if announced == os.getpid():
        withdraw(file)


def withdraw(file: Path) -> None:
    """Remove an announcement, of this server or of one that ended without doing so. Raises `ConfigError`."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--ready-file {file} cannot be removed: {error.strerror}") from error
