from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.neighbours import Looks
from bench.serving.machine import this_machine
from bench.serving.report import Figure, Result, save, show
from bench.serving.rounds import Spread


def _figure(median: float, **target: float) -> Figure:
    return Figure("a figure", Spread(median, median - 1, median + 1), "x", **target)


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (_figure(0.8, at_least=0.8), True),
        (_figure(0.79, at_least=0.8), False),
        (_figure(1.25, at_most=1.25), True),
        (_figure(1.26, at_most=1.25), False),
        (_figure(0.0, at_most=0.0), True),
        (_figure(5.0), None),
    ],
)
def test_the_median_is_judged(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_a_result_names_what_it_missed() -> None:
    result = Result("wire", "title", [_figure(1.0, at_least=2.0), _figure(3.0, at_least=2.0), _figure(0.0)])
    assert result.missed == ["a figure"]


def test_what_is_saved_can_be_read_back(tmp_path: Path) -> None:
    result = Result("wire", "title", [_figure(1.0, at_least=2.0)], conditions=("quiet",))
    document = json.loads(
        save([result], this_machine(), Looks([[1.0, 2.0]]), tmp_path / "results").read_text(encoding="utf-8")
    )
    (saved,) = document["results"]
    assert saved["figures"][0]["value"] == {"median": 1.0, "low": 0.0, "high": 2.0}
    assert saved["figures"][0]["reached"] is False
    assert saved["conditions"] == ["quiet"]
    assert document["machine"]["cores"] >= 1
    assert document["disturbed_by_neighbours"] == 0.5


def test_the_table_shows_targets_and_verdicts() -> None:
    console = Console(file=io.StringIO(), width=120)
    show(Result("wire", "Against echo", [_figure(1.0, at_least=2.0)], notes=("a note",)), console)
    text = console.file.getvalue()
    assert "Against echo" in text
    assert ">= 2" in text
    assert "missed" in text
    assert "a note" in text
