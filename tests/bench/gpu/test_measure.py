from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tiny_server import colour_model

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


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["--network", "nowhere.onnx", "--out", str(tmp_path / "out")]) == measure.EXIT_ERROR
    assert "neither a network nor a file" in capsys.readouterr().err
