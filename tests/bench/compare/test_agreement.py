"""Two comparisons on one machine, held against each other."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from compare_records import cell, record
from rich.console import Console

from bench.compare.agreement import Earlier, Verdict, agreement_text, agreements, read_earlier
from bench.compare.summary import Line, summarise
from bench.compare.tables import show_agreements
from server.errors import ConfigError

QUIET, NOISY = [10.0] * 6, [10.0, 10.0, 10.0, 12.0, 12.0, 12.0]


def line(batches_ms: list[float]) -> Line:
    (only,) = summarise([record(cell(batch=8), batches_ms)], None)
    return only


def earlier(
    p50_ms: float, halves_apart: float | None = 0.0, fingerprint: str = "f", rate: float = 0.0
) -> Earlier:
    return Earlier(fingerprint, p50_ms, rate or 8e3 / p50_ms, halves_apart)


@pytest.mark.parametrize(
    ("now", "before", "verdict"),
    [
        (QUIET, earlier(10.5), Verdict.AGREES),
        (QUIET, earlier(9.6), Verdict.AGREES),
        (QUIET, earlier(10.6), Verdict.DIFFERS),
        (QUIET, earlier(10.6, halves_apart=None), Verdict.DIFFERS),
        (QUIET, earlier(10.6, halves_apart=0.06), Verdict.TOO_NOISY),
        (QUIET, earlier(10.4, halves_apart=0.06), Verdict.AGREES),
        (NOISY, earlier(10.0), Verdict.TOO_NOISY),
        (QUIET, earlier(10.0, rate=700.0), Verdict.DIFFERS),
        (QUIET, earlier(10.0, fingerprint="another machine"), Verdict.OTHERWISE),
    ],
)
def test_a_cell_is_judged(now: list[float], before: Earlier, verdict: Verdict) -> None:
    (found,) = agreements([line(now)], {cell(batch=8): before})
    assert found.verdict is verdict


def test_only_what_was_measured_both_times_is_compared() -> None:
    lines = [line(QUIET), *summarise([record(cell(batch=1), [])], None)]
    assert agreements(lines, {cell(batch=1): earlier(1.0), cell(batch=4): earlier(1.0)}) == ()
    assert "no cell was measured both times" in agreement_text(())


def test_the_sentence_names_what_does_not_agree() -> None:
    records = [record(cell(batch=1), QUIET), record(cell(batch=2), QUIET), record(cell(batch=4), NOISY)]
    before = {
        cell(batch=1): earlier(10.1, rate=100.0),
        cell(batch=2): earlier(12.0, rate=2e3 / 12.0),
        cell(batch=4): earlier(10.0, rate=400.0),
    }
    found = agreements(summarise(records, None), before)
    text = agreement_text(found)
    assert re.search(
        r"of 3 cells, 5% allowed, largest 20\.0%: 1 agrees; 1 too noisy \(net .* b4: 10\.0%\)", text
    )
    assert text.endswith("1 differs (net fp32 on pytorch b2: 20.0%)")
    shown = StringIO()
    show_agreements(found, Console(width=120, file=shown))
    assert re.search(r"pytorch +2 +12 +10 +20\.0% +differs", shown.getvalue())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": [1]}', '{"cells": [{"p50_ms": 1}]}'])
def test_anything_else_is_no_comparison(tmp_path: Path, content: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"is no comparison: the compare\.json of an earlier run"):
        read_earlier(path)


def test_a_comparison_that_measured_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    path.write_text(json.dumps({"cells": [{"p50_ms": None}]}))
    with pytest.raises(ConfigError, match="holds no cell that was measured"):
        read_earlier(path)
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read: No such file"):
        read_earlier(tmp_path / "absent.json")
