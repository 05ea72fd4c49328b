"""The servers that are measured: Boulton itself and the echo servers, as child processes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.serving.processes import Server, port_in, running

ECHO_FORMS = {
    "echo aio": ("aio",),
    "echo sync": ("sync",),
    "echo aio, tuned": ("aio", "--tuned"),
    "echo sync, tuned": ("sync", "--tuned"),
}
BARE_ECHOES = ("echo aio", "echo sync")


@contextmanager
def boulton(
    repository: Path, models: Sequence[str], *flags: str, threads: int = 1, cpus: Sequence[int] = ()
) -> Iterator[Server]:
    """Serve models with the real daemon, ungoverned: the largest batch, no added delay."""
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready.json")
        command = [sys.executable, "-m", "server.cli", "serve", "--repository", str(repository)]
        command += [word for model in models for word in ("--model", model)]
        command += ["--port", "0", "--metrics-port", "0", "--no-govern", "--threads", str(threads)]
        command += ["--ready-file", str(ready), *flags]
        with running("boulton", command, port_in(ready), cpus=cpus) as server:
            yield server


@contextmanager
def echoes(forms: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Run echo servers; `forms` are keys of `ECHO_FORMS`."""
    with ExitStack() as stack:
        yield {form: stack.enter_context(echo(form, *ECHO_FORMS[form])) for form in forms}


@contextmanager
def echo(name: str, *flags: str) -> Iterator[Server]:
    """Run one echo server; `flags` are its own."""
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready.json")
        command = [sys.executable, "-m", "bench.serving.echo", *flags, "--ready-file", str(ready)]
        with running(name, command, port_in(ready)) as server:
            yield server
