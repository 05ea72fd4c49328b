"""`boulton build` as a person runs it, with TensorRT-RTX, for GPUs that are not here."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from server.cli import main

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 8))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def build(model: Path, *flags: str) -> int:
    return main(["build", str(model), "--output", str(model.parent / "out"), *flags])


def test_an_engine_a_kind_of_gpu(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(model, "--rtx", "--for", "SM80,8.6,89", "--batches", "1,8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["SM80", "SM86", "SM89"]
    assert all(re.search(r"relu-SM\d\d-[0-9a-f]{16}\.plan  \d+\.\d MiB  \d+\.\d s$", line) for line in lines)
    assert {line.split()[1] for line in lines} == {str(p) for p in (model.parent / "out").iterdir()}


def test_all_kinds_and_usual_batches_by_default(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(model, "--rtx", "--no-tf32", "--layer-names", "--workspace-mib", "64") == 0
    assert {"SM80", "SM86", "SM89", "SM120"} <= {s.split()[0] for s in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--for", "SM90"), r"--for SM90: tensorrt-rtx .* builds for SM75, .*`boulton doctor`"),
        (("--for", "SM80", "--batches", "2,2"), r"batches are 2, 2; 1 to 32 different sizes"),
        (
            ("--for", "SM80", "--batches", "1,4096000000"),
            r"1 to 32 different sizes of 1 to 65536 are allowed",
        ),
    ],
)
def test_what_cannot_be_built_is_said(
    model: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert build(model, "--rtx", *flags) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


@pytest.mark.parametrize("content", [b"", b"garbage " * 50])
def test_garbage_is_refused(model: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    model.write_bytes(content)
    assert build(model, "--rtx", "--for", "SM80", "--batches", "1") == 2
    assert "relu.onnx" in capsys.readouterr().err


@pytest.mark.parametrize("batches", ["", "0", "-1", "a", "1,,2"])
def test_batches_are_positive_numbers(model: Path, capsys: pytest.CaptureFixture[str], batches: str) -> None:
    with pytest.raises(SystemExit):
        build(model, "--rtx", "--batches", batches)
    assert "positive whole numbers" in capsys.readouterr().err
