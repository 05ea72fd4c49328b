from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.demo import control_step
from bench.demo.control_step import gpu_control
from bench.demo.stage import DemoFailed, Stage


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stage(printed: io.StringIO) -> Stage:
    return Stage(Console(file=printed, width=200))


def test_a_killed_daemon_leaves_no_clock_locked(stage: Stage, printed: io.StringIO) -> None:
    gpu_control(stage)
    assert "SM clock is locked at 1380 MHz" in printed.getvalue()
    (finding,) = stage.findings
    assert "[simulated] the daemon was killed" in finding


def test_without_a_compiler_it_is_left_out_in_a_sentence(
    stage: Stage, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    gpu_control(stage)
    assert "Left out: there is no C compiler 'no-such-compiler'" in printed.getvalue()
    assert stage.findings == []


def test_a_compiler_that_fails_fails_the_demo(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(DemoFailed, match="cannot compile the stand-in"):
        gpu_control(stage)


def test_a_clock_that_is_not_given_back_fails_the_demo(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_step, "await_default", lambda *_: None)
    with pytest.raises(DemoFailed, match="was not given back within 2 s"):
        gpu_control(stage)
