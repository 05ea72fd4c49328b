from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bench.control.rehearsal import Rehearsal, rehearse, show

pytest_plugins = ["control_scene"]

GOOD = Rehearsal(60.0, [1380, 885, 885, 720], 990, 10, 1000.0, 1010.0, 0.5, True, 0)


def test_what_a_rehearsal_must_show() -> None:
    assert GOOD.kept
    assert GOOD.late_share == 0.01
    for broken in (
        {"clocks_mhz": [1380, 1380]},
        {"nvml_j": None},
        {"nvml_j": 900.0},
        {"given_back": False},
        {"exit_code": None},
    ):
        assert not replace(GOOD, **broken).kept


def test_the_course_of_the_clock_is_told_without_repetitions() -> None:
    out = io.StringIO()
    show(GOOD, Console(file=out, width=200))
    assert "clocks that travelled through NVML: 1380, 885, 720 MHz" in out.getvalue()
    assert "late 10 (1.00%)" in out.getvalue()


@pytest.mark.usefixtures("started")
def test_a_short_rehearsal_serves_and_gives_the_card_back() -> None:
    found = rehearse(Console(file=io.StringIO()), seconds=3.0, seed=0)
    assert found.in_time > 0
    assert found.clocks_mhz
    assert found.given_back
    assert found.exit_code == 0
