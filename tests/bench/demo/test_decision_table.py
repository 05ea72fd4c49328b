from __future__ import annotations

import io

from rich.console import Console

from bench.demo.decision_table import DecisionTable
from bench.demo.stage import Kind, Stage
from protos import boulton_pb2 as pb


def _show(*decisions: pb.Decision) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    table = DecisionTable(Stage(console), Kind.SIMULATED)
    for decision in decisions:
        table.show(decision)
    return console.file.getvalue().splitlines()


def test_a_move_is_marked_and_figures_are_the_windows() -> None:
    window = pb.Window(
        duration_s=2.0,
        point=pb.OperatingPoint(batch_limit=64, sm_clock_mhz=1530),
        arrived=50,
        latency_p99_ms=12.34,
        energy_j=80.0,
    )
    after = pb.OperatingPoint(batch_limit=8, sm_clock_mhz=1530)
    heading, names, line = _show(pb.Decision(window=window, point=after, revenue=pb.Revenue(total=0.001)))
    assert str(Kind.SIMULATED) in heading
    assert names.split()[:2] == ["second", "images/s"]
    assert line.split() == ["2", "25", "12.3", "0", "0", "64", "->", "8", "1530", "40", "1.800"]


def test_what_was_not_measured_is_a_dash() -> None:
    window = pb.Window(duration_s=1.0, point=pb.OperatingPoint(batch_limit=64))
    *_, line = _show(pb.Decision(window=window, point=window.point))
    assert line.split() == ["1", "0", "-", "0", "0", "64", "-", "-", "0.000"]
