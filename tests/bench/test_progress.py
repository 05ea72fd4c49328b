from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from bench import progress
from bench.progress import CountingBar


def test_without_a_terminal_a_line_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, shown = [100.0], StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with CountingBar("measuring", "measured, now", 20.0, total=3, console=Console(file=shown)) as bar:
        for step in range(5):
            bar.doing(f"cell {step}")
            bar.done()
            now_s[0] += 10.0
        bar.expect(-1)
        bar.doing("[the last]")
    assert shown.getvalue().splitlines() == [
        "2 of 3 measured, now cell 2",
        "4 of 3 measured, now cell 4",
    ]


def test_on_a_terminal_a_bar_counts_from_where_it_stood() -> None:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with CountingBar("simulating", "simulated, last", 60.0, total=8, done=3, console=console) as bar:
        bar.done(2)
        bar.expect(4)
        bar.doing("one more")
    assert re.search(r"simulating.*5/12", shown.getvalue())
    assert "one more" in shown.getvalue()
