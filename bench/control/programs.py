"""The keeper and the daemon as processes: started, watched, killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.control.scene import PROFILE, PROFILE_MODEL, Scene

BOULTON = (sys.executable, "-m", "server.cli")
START_LIMIT_S = 60.0
END_LIMIT_S = 60.0
_POLL_S = 0.002
DECISION_INTERVAL_S = 0.05


class DidNotStart(Exception):
    """A program did not get ready; ends with what it logged."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running process of ours, and the file that holds all it printed."""

    process: subprocess.Popen[bytes]
    log: Path
    started_s: float

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def kill(self) -> float:
        """SIGKILL; return when it was dead, on the monotonic clock."""
        self.process.kill()
        self.process.wait(END_LIMIT_S)
        return time.monotonic()

    def end(self, limit_s: float = END_LIMIT_S) -> int | None:
        """SIGTERM; return the exit code, None (and kill) when it did not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a daemon that is ready listens."""

    grpc: int
    operator: int
    metrics: int | None


def start_keeper(scene: Scene) -> Program:
    """Start the keeper of all cards. It listens a moment later: see `await_keeper`."""
    words = ["keeper", "--config", str(scene.keeper_config)]
    return _start(scene, words, scene.directory / "keeper.log")


def await_keeper(scene: Scene, keeper: Program) -> float:
    """Wait until the keeper answers; return when, on the monotonic clock. Raises DidNotStart."""
    while not _listens(scene.socket):
        _check(keeper, "the keeper")
        time.sleep(_POLL_S)
    return time.monotonic()


def start_daemon(scene: Scene, card: int, name: str, *flags: str) -> Program:
    """Start a daemon that governs one card; `name` is its own among those that run."""
    directory = scene.directory / name
    directory.mkdir(exist_ok=True)
    ready_file(scene, name).unlink(missing_ok=True)
    words = ["serve", "--repository", str(scene.repository), "--engine", "simulated", "--gpu", PROFILE]
    words += ["--simulated-model", PROFILE_MODEL, "--device", scene.uuids[card], "--control"]
    words += ["--keeper-socket", str(scene.socket), "--port", "0", "--operator-port", "0"]
    words += ["--state-dir", str(directory), "--ready-file", str(ready_file(scene, name))]
    words += flags or ["--no-metrics", "--decision-interval-s", f"{DECISION_INTERVAL_S:g}"]
    return _start(scene, words, directory / "log")


def ready_file(scene: Scene, name: str) -> Path:
    """Where a daemon announces itself."""
    return scene.directory / name / "ready.json"


def ports_of(scene: Scene, name: str) -> Ports | None:
    """Where a daemon listens; None while it is not ready."""
    try:
        facts = json.loads(ready_file(scene, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Ports(facts["grpc_port"], facts["operator_port"], facts["metrics_port"])


def await_daemon(scene: Scene, daemon: Program, name: str) -> Ports:
    """Wait until a daemon is ready. Raises DidNotStart."""
    while (ports := ports_of(scene, name)) is None:
        _check(daemon, name)
        time.sleep(_POLL_S)
    return ports


def _start(scene: Scene, words: Sequence[str], log: Path) -> Program:
    with log.open("ab") as sink:
        started_s = time.monotonic()
        process = subprocess.Popen(
            [*BOULTON, *words],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=scene.environment,
        )
    return Program(process, log, started_s)


def _check(program: Program, name: str) -> None:
    late = time.monotonic() - program.started_s > START_LIMIT_S
    if late or not program.alive:
        program.process.kill()
        last = "\n".join(program.text.splitlines()[-15:])
        raise DidNotStart(f"{name} {'was not ready in time' if late else 'ended'}:\n{last}")


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
