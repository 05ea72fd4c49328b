"""A keeper and a daemon on simulated cards, each a process of its own; every one has ended after the test.

In a test module:

    pytest_plugins = ["control_scene"]

`scene` is one card of the stand-in, `keeper` a keeper that answers, and `start(*flags)` starts a daemon that
is ready. Whatever a test does, or fails to do, no process outlives it: a test that makes its own scene asks
for `started`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from nvml_rack import library_directory

from bench.control import programs
from bench.control.programs import Program, await_daemon, await_keeper, start_daemon, start_keeper
from bench.control.scene import Scene, make_scene

NAME = "daemon"
FLAGS = ("--metrics-port", "0", "--decision-interval-s", "0.05")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Program]]:
    """The keepers and daemons that the test has started so far; they end with it."""
    started: list[Program] = []
    start = programs._start

    def watched(*arguments: object) -> Program:
        program = start(*arguments)
        started.append(program)
        return program

    monkeypatch.setattr(programs, "_start", watched)
    yield started
    _kill(started)


@pytest.fixture
def scene(started: list[Program]) -> Iterator[Scene]:
    """One card that this user may set."""
    with make_scene(library=library_directory()) as scene:
        yield scene
        _kill(started)  # before what they write to is removed


@pytest.fixture
def keeper(scene: Scene) -> Program:
    """A keeper that answers."""
    keeper = start_keeper(scene)
    await_keeper(scene, keeper)
    return keeper


@pytest.fixture
def start(scene: Scene) -> Callable[..., Program]:
    """Starts a daemon that governs the card."""

    def start(*flags: str) -> Program:
        daemon = start_daemon(scene, 0, NAME, *FLAGS, *flags)
        await_daemon(scene, daemon, NAME)
        return daemon

    return start


def _kill(started: list[Program]) -> None:
    for program in reversed(started):
        if program.alive:
            program.kill()
