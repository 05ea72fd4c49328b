"""`boulton export` as a person uses it."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from server.commands import export
from server.errors import ExportError
from server.exporting.progress import ConsoleProgress


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["input"], ["output"])],
        "pool",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    path = tmp_path / "pool.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(model, path)
    return path


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return parser.parse_args(words)


def test_the_summary_says_what_was_written(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--input", "uint8", "--mean", "0.5,0.4,0.3", "--std", "0.2", "--max-batch", "8", "--resize", "9"]
    assert export.run(parse(str(pool), "--repository", str(pool.parent / "models"), *flags)) == 0
    out, err = capsys.readouterr()
    assert f"pool version 1: {pool.parent}/models/pool/1/model.onnx" in out
    assert "input UINT8 [batch, 8, 8, 3]" in out
    assert "output FP32 [batch, 3, 1, 1]" in out
    assert "(pixel / 255 - [0.5, 0.4, 0.3]) / 0.2" in out
    assert "JPEG and PNG" in out
    assert "largest difference" in out
    assert "takes any batch" in out
    assert "comparing with the file given ...\n" in err  # progress is on stderr, in plain lines


def test_an_export_that_fails_raises_what_the_command_line_shows(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone\.onnx cannot be read"):
        export.run(parse("gone.onnx", "--repository", str(tmp_path)))


@pytest.mark.parametrize(
    "words",
    [
        ["--input-shape", "3,x,4"],
        ["--input-shape", "0,2,2"],
        ["--input-shape", "3,-2,2"],
        ["--input-shape", ""],
        ["--mean", "a"],
        ["--max-batch", "0"],
        ["--max-batch", "1.5"],
        ["--resize", "-1"],
        ["--input", "int4"],
        ["--version", "one"],
    ],
)
def test_wrong_flags_are_refused_by_the_parser(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("m.onnx", "--repository", "r", *words)
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--scale", "0"], "--scale must be a positive number, got 0"),
        (["--scale", "nan"], "--scale must be a positive number"),
        (["--std", "1,0,1"], "--std must hold positive numbers"),
        (["--mean", "inf"], "--mean must hold finite numbers"),
        (["--mean", "1,2"], "--mean has 2 values, but the network's input has 3 channels"),
    ],
)
def test_impossible_preprocessing_is_refused(pool: Path, words: list[str], complaint: str) -> None:
    arguments = parse(str(pool), "--repository", str(pool.parent / "models"), "--input", "uint8", *words)
    with pytest.raises(ExportError, match=complaint):
        export.run(arguments)


def test_missing_onnx_runtime_says_what_to_install(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'boulton\[cpu\]'"):
        export.run(parse(str(pool), "--repository", str(pool.parent / "models")))


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_each_step(terminal: bool) -> None:
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen, force_terminal=terminal, width=80))
    with progress.step("working [hard]"):
        begun = screen.getvalue()
    assert terminal or begun == "working [hard] ...\n"
    assert "working [hard]: 0.0 s\n" in screen.getvalue()


def test_a_step_that_fails_is_not_reported_as_done() -> None:
    screen = io.StringIO()
    progress = ConsoleProgress(Console(file=screen))
    with pytest.raises(ExportError), progress.step("working"):
        raise ExportError("no")
    assert screen.getvalue() == "working ...\n"
