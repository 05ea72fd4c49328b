"""Single failures, one of each kind of degradation; the whole table is `python -m bench.control failures`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from nvml_rack import library_directory

from bench.control import trial as trials
from bench.control.scene import Scene, make_scene
from bench.control.trial import Phase, Trial, attempt

NO_PERMISSION, TIMEOUT, GPU_IS_LOST, DRIVER_NOT_LOADED, UNKNOWN = 4, 10, 15, 9, 999


@pytest.fixture
def scene() -> Iterator[Scene]:
    with make_scene(library=library_directory()) as scene:
        yield scene


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
    monkeypatch.setattr(trials, "_SETS_CLOCKS", ("nvmlDeviceGetTemperature",))
    case = attempt(scene, Trial("volta", "nvmlDeviceGetTemperature", TIMEOUT, Phase.WORK))
    assert case.problems == ("control is on, expected refused",)
    assert not case.kept
    assert replace(case, problems=()).kept
