"""Single failures, one of each kind of degradation; the whole table is `python -m bench.control failures`."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.control import failures
from bench.control import trial as trials
from bench.control.failures import read_journal, run_all
from bench.control.promises import (
    LOST,
    ON,
    REFUSED,
    UNAVAILABLE,
    Lines,
    Phase,
    Trial,
    daemon_problems,
    keeper_problems,
    metric_problems,
    silence_problems,
    state_promised,
)
from bench.control.scene import Scene
from bench.control.trial import Case, attempt

NOT_SUPPORTED = 3
NO_PERMISSION, TIMEOUT, GPU_IS_LOST, DRIVER_NOT_LOADED, UNKNOWN = 4, 10, 15, 9, 999

pytest_plugins = ["control_scene"]


@pytest.mark.parametrize(
    ("function", "code", "phase", "outcome"),
    [
        ("nvmlInit", DRIVER_NOT_LOADED, Phase.START, "did not start, and said why"),
        ("nvmlDeviceSetGpuLockedClocks", NO_PERMISSION, Phase.START, "served; control refused"),
        ("nvmlDeviceGetTemperature", TIMEOUT, Phase.WORK, "served; control on"),
        ("nvmlDeviceGetClockInfo", GPU_IS_LOST, Phase.WORK, "served; control lost"),
        ("nvmlDeviceResetGpuLockedClocks", UNKNOWN, Phase.WORK, "served; control"),
    ],
)
def test_a_failure_degrades_as_promised(
    scene: Scene, function: str, code: int, phase: Phase, outcome: str
) -> None:
    case = attempt(scene, Trial("volta", function, code, phase))
    assert case.problems == ()
    assert case.outcome.startswith(outcome)


def test_a_daemon_that_degrades_otherwise_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the expectation turned round, what is right must count as broken."""
    monkeypatch.setattr(trials, "state_promised", lambda _trial, _calls: REFUSED)
    case = attempt(scene, Trial("volta", "nvmlDeviceGetTemperature", UNKNOWN, Phase.WORK))
    assert case.problems == ("control is on, expected refused",)
    assert case.calls
    assert not case.kept
    assert replace(case, problems=()).kept


@pytest.mark.parametrize(
    ("kind", "function", "code", "phase", "state"),
    [
        ("volta", "nvmlDeviceGetTemperature", TIMEOUT, Phase.START, ON),
        ("volta", "nvmlDeviceGetTemperature", DRIVER_NOT_LOADED, Phase.WORK, LOST),
        ("volta", "nvmlDeviceSetGpuLockedClocks", NOT_SUPPORTED, Phase.START, ON),
        ("volta", "nvmlDeviceSetGpuLockedClocks", GPU_IS_LOST, Phase.START, LOST),
        ("volta", "nvmlDeviceSetGpuLockedClocks", DRIVER_NOT_LOADED, Phase.WORK, REFUSED),
        ("hopper", "nvmlDeviceGetHandleByUUID", UNKNOWN, Phase.START, UNAVAILABLE),
        ("hopper", "nvmlDeviceGetHandleByUUID", UNKNOWN, Phase.WORK, REFUSED),
        ("hopper", "nvmlDeviceGetMigMode", UNKNOWN, Phase.START, UNAVAILABLE),
        ("hopper", "nvmlDeviceGetMigMode", NOT_SUPPORTED, Phase.START, ON),
        ("hopper", "nvmlDeviceGetApplicationsClock", UNKNOWN, Phase.START, ON),
        ("pascal", "nvmlDeviceGetApplicationsClock", UNKNOWN, Phase.START, REFUSED),
        ("hopper", "nvmlDeviceGetApplicationsClock", DRIVER_NOT_LOADED, Phase.START, REFUSED),
        ("pascal", "nvmlDeviceGetApplicationsClock", DRIVER_NOT_LOADED, Phase.START, LOST),
        ("hopper", "nvmlDeviceGetPowerManagementLimitConstraints", TIMEOUT, Phase.START, UNAVAILABLE),
        ("hopper", "nvmlDeviceGetPowerManagementLimit", TIMEOUT, Phase.WORK, ON),
    ],
)
def test_each_failure_has_one_degradation(
    kind: str, function: str, code: int, phase: Phase, state: str
) -> None:
    trial = Trial(kind, function, code, phase)
    assert state_promised(trial, 1) == state
    assert state_promised(trial, 0) == ON, "a function that nobody called did no harm"


def test_what_is_said_twice_or_never_or_not_measured_is_noticed() -> None:
    trial = Trial("volta", "nvmlDeviceGetTemperature", UNKNOWN, Phase.WORK)
    line = "Z WARNING gpu: G: nvmlDeviceGetTemperature: its temperature (G): NVML says UNKNOWN (999); run it"
    assert Lines(trial).of(f"{line}\n{line.replace('Temperature:', 'Name:')}\n") == [line]
    assert not list(daemon_problems([line], [line]))
    assert len(list(daemon_problems([line, line], [line, line]))) == 2
    assert list(silence_problems(trial, 1, []))
    assert not list(silence_problems(trial, 1, [line]))
    assert not list(silence_problems(trial, 0, []))
    assert list(metric_problems(trial, counted=False, state="on"))
    assert not list(metric_problems(trial, counted=True, state="on"))
    assert not list(metric_problems(trial, counted=False, state="refused"))
    refused = "Z WARNING keeper: refused pid 1 (gpu): nvmlX: NVML says UNKNOWN (999)"
    assert not list(keeper_problems([refused, "Z ERROR keeper: cannot give the GPU back: nvmlX"]))
    assert list(keeper_problems([refused, refused]))


def test_cases_in_a_journal_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Trial] = []

    def play(_scene: Scene, trial: Trial) -> Case:
        asked.append(trial)
        return Case(trial, "served; control on", 3, ("said",), ())

    called = [("volta", "nvmlDeviceGetTemperature", phase) for phase in Phase]
    monkeypatch.setattr(failures, "_called", lambda _console, _library: called)
    monkeypatch.setattr(failures, "attempt", play)
    console, journal = Console(file=io.StringIO()), tmp_path / "journal"
    first = run_all(console, at_once=1, codes=[UNKNOWN], journal=journal)
    assert [case.trial for case in first] == asked
    with journal.open("a") as file:
        file.write('{"trial": {"ki')  # it was killed while it wrote
    assert list(read_journal(journal)) == asked
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:1]))
    again = run_all(console, at_once=1, codes=[UNKNOWN], journal=journal)
    assert [case.trial for case in again] == asked[:2]
    assert asked[2:] == [asked[1]]
