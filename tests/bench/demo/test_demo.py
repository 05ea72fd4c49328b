from __future__ import annotations

from pathlib import Path

import pytest

from bench.demo import __main__ as demo
from bench.demo import steps


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each comparison on the simulated GPU is to find that governing helped."""
    outcomes: list[bool] = []

    def compare(*_anything: object) -> None:
        if not outcomes.pop(0):
            raise steps.GoverningDidNotHelp("it earned less")

    monkeypatch.setattr(steps, "export", lambda *_: None)
    monkeypatch.setattr(steps, "on_this_machine", lambda *_: (25.0,))
    monkeypatch.setattr(steps, "on_a_simulated_gpu", compare)
    monkeypatch.setattr(demo, "gpu_control", lambda _: None)
    return outcomes


@pytest.mark.parametrize(
    ("outcomes", "code"), [([True], 0), ([False, True], 0), ([False, False], 1)], ids=str
)
def test_what_chance_may_have_spoilt_is_tried_once_more(
    tries: list[bool], outcomes: list[bool], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tries += outcomes
    assert demo.main(["--out", str(tmp_path / "out")]) == code
    assert not tries
    assert ("once more" in capsys.readouterr().out) is (outcomes[0] is False)
