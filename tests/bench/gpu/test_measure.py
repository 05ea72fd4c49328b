from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from tiny_server import colour_model

from bench.compare.plan import Cell, Subject
from bench.compare.records import Record
from bench.compare.summary import summarise
from bench.compare.writing import write_csv
from bench.gpu import measure


def test_a_comparison_is_made_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tmp_path / "colours.onnx"
    onnx.save(colour_model(), network)
    words = ["--network", str(network), "--batches", "1", "--out", str(tmp_path / "out")]
    fast = ["--engine", "onnxruntime", "--turns", "2", "--window", "0.01", "--lead", "0", "--warm-up", "0.05"]
    code = measure.main([*words, "--precision", "fp32", "--copy", str(tmp_path / "copy"), "--", *fast])
    assert code == 0
    assert {path.name for path in (tmp_path / "copy").iterdir()} == set(measure.RESULTS)
    assert "| CNN | precision | engine |" in capsys.readouterr().out


def test_engines_of_the_cpu_are_left_out_unless_they_are_asked_for() -> None:
    named = measure._engines([])[1::2]
    assert {"tensorrt", "pytorch", "tensorflow", "onnxruntime-cuda"} <= set(named)
    assert "onnxruntime" not in named
    assert measure._engines(["--engine", "onnxruntime"]) == []


def test_the_table_has_what_was_measured_and_gaps_for_the_rest() -> None:
    empty = dict.fromkeys((name for name, _, _ in measure._COLUMNS), "")
    measured = {**empty, "network": "n", "engine": "e", "p50_ms": "1.23456", "images_per_s": "812.4"}
    joules = {**measured, "joules_per_image": "0.0123", "images_per_joule": "81.3"}
    table = measure.markdown([measured, joules, empty]).splitlines()
    assert len(table) == 4
    assert table[2] == "| n |  | e |  | 1.23 |  | 812 |  |  |  |  |"
    assert "| 12.3 | 81.3 |" in table[3]


def test_mistakes_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["--network", "nowhere.onnx", "--out", str(tmp_path / "out")]) == measure.EXIT_ERROR
    told = capfd.readouterr()
    assert "neither a network nor a file" in told.err
    assert "nothing was measured" in told.out


HANGING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "deaf" else signal.default_int_handler)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("kind", "signal_"), [("deaf", signal.SIGKILL), ("listening", signal.SIGINT)])
def test_what_does_not_end_is_ended(kind: str, signal_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_STOP_S", 2.0)
    seconds: list[None] = []
    code = measure.supervised([sys.executable, "-c", HANGING, kind], 2.0, lambda: seconds.append(None))
    assert code == -signal_
    assert seconds


def test_nothing_goes_on_when_it_is_killed(tmp_path: Path) -> None:
    network = tmp_path / "colours.onnx"
    onnx.save(colour_model(), network)
    words = [
        "--network",
        str(network),
        "--precision",
        "fp32",
        "--batches",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    slow = ["--", "--engine", "onnxruntime", "--turns", "900", "--window", "0.2", "--warm-up", "0.05"]
    command = [sys.executable, "-m", "bench.gpu.measure", *words, *slow]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        table = tmp_path / "out" / "compare.csv"
        wait_for(table.exists)
        (comparing,) = children(process.pid)
        process.kill()
    wait_for(lambda: not Path(f"/proc/{comparing}").exists())
    assert table.read_text().count("\n") == 2


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def wait_for(ready: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60.0
    while not ready():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_what_was_measured_is_kept_while_it_is_measured(tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy"
    arguments = measure._parser().parse_args(["--out", str(out), "--copy", str(copy)])
    measure._keep(arguments)  # there is nothing yet
    out.mkdir()
    (out / "compare.csv").write_text("first")
    measure._keep(arguments)
    assert [path.name for path in copy.iterdir()] == ["compare.csv"]
    (out / "compare.csv").write_text("second")
    measure._keep(arguments)
    assert (copy / "compare.csv").read_text() == "second"


def test_failures_are_told_below_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(Cell(Subject("net", "fp16", "tensorrt"), 8), "f", failure="no memory")
    write_csv(tmp_path / "compare.csv", summarise([record], None))
    measure._tell(tmp_path)
    assert "failed: net fp16 on tensorrt, batch 8: no memory" in capsys.readouterr().out
