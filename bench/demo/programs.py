"""The command `boulton` as the demo uses it: the same programs and flags as a user would type."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.demo.stage import DemoFailed, Stage
from bench.serving.processes import port_in, running

BOULTON = (sys.executable, "-m", "server.cli")
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Daemon:
    """Where a running daemon answers its clients, and where its operator."""

    url: str
    operator_url: str


def run_boulton(stage: Stage, words: Sequence[str], *, limit_s: float = 180.0) -> str:
    """Run a subcommand to its end; return what it printed. Raises DemoFailed with its last lines."""
    stage.command(["boulton", *words])
    try:
        done = subprocess.run(
            [*BOULTON, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"`boulton {words[0]}` did not end within {limit_s:g} s") from None
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
        raise DemoFailed(f"`boulton {words[0]}` exited {done.returncode}:\n{last}")
    return done.stdout


@contextmanager
def serving(stage: Stage, name: str, repository: Path, flags: Sequence[str]) -> Iterator[Daemon]:
    """Run the daemon on free ports until the block ends."""
    words = ["serve", "--repository", str(repository), "--port", "0", *flags]
    stage.command(["boulton", *words])
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready.json")
        command = [*BOULTON, *words, "--metrics-port", "0", "--ready-file", str(ready)]
        command += ["--operator-port", "0", "--state-dir", directory]
        with running(name, command, port_in(ready)) as server:
            stage.say(f"ready: gRPC on {server.url}, process {server.pid}")
            yield Daemon(server.url, f"127.0.0.1:{port_in(ready, 'operator_port')()}")
