"""The script that is carried to a machine with a GPU, rehearsed on one that is not there."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from fake_gpu import FakeCuda, FakeRuntimeModule
from onnx import TensorProto, helper

from bench.gpu import try_tensorrt
from server.engines.engine import Array
from server.engines.tensorrt import loading
from server.engines.tensorrt.engine import TensorRtEngine
from server.engines.tensorrt.toolkit import TENSORRT_RTX, load_toolkit
from server.errors import CudaLost, EngineError

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 8))
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "sin", [x], [y])
    path = tmp_path / "sin.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def rehearse(model: Path, monkeypatch: pytest.MonkeyPatch, *, wrong: bool = False) -> tuple[int, list[dict]]:
    toolkit, cuda = load_toolkit(TENSORRT_RTX), FakeCuda()
    module = FakeRuntimeModule(toolkit.trt, cuda, model, (1, 4))

    def load(*arguments: object, **settings: object) -> object:
        engine = loading.load_tensorrt_engine(
            *arguments,
            **settings,
            open_device=lambda _: cuda,
            find_toolkit=lambda _: replace(toolkit, trt=module),
        )
        if wrong:
            write = cuda.write
            cuda.write = lambda address, values: write(address, values + values.dtype.type(1))
        return engine

    monkeypatch.setattr(try_tensorrt, "load_tensorrt_engine", load)
    out = model.with_suffix(".json")
    flags = ["--toolkit", TENSORRT_RTX, "--batches", "1,4", "--json", str(out)]
    return try_tensorrt.main([str(model), *flags]), json.loads(out.read_text())


def test_it_tries_everything(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, findings = rehearse(model, monkeypatch)
    names = {finding["name"] for finding in findings}
    assert code == 0
    assert {"first start", "second start", "answers at batch 3", "overlapping at batch 4"} <= names
    assert "FAILED" not in capsys.readouterr().out


def test_wrong_answers_are_noticed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = rehearse(model, monkeypatch, wrong=True)
    assert code == 1
    assert "FAILED  answers at batch 1" in capsys.readouterr().out


def test_what_fails_keeps_nothing_else_from_being_tried(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = try_tensorrt._times

    def failing(engine: TensorRtEngine, batch: int) -> try_tensorrt.Finding:
        if batch == 1:
            raise MemoryError("no room")
        return times(engine, batch)

    monkeypatch.setattr(try_tensorrt, "_times", failing)
    code, findings = rehearse(model, monkeypatch)
    assert code == 1
    failed = [finding["detail"] for finding in findings if not finding["ok"]]
    assert failed == ["MemoryError: no room"]
    assert {"overlapping at batch 1", "one by one at batch 4", "second start"} <= {
        finding["name"] for finding in findings
    }
    assert "What was tried" in capsys.readouterr().out


def test_a_failure_on_the_way_leaves_nothing_under_way(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish, calls = TensorRtEngine.finish, itertools.count()

    def failing(engine: TensorRtEngine) -> tuple[Array, ...]:
        answers = finish(engine)
        if len(engine._begun) and next(calls) == 5:
            raise EngineError("lost its way")
        return answers

    monkeypatch.setattr(TensorRtEngine, "finish", failing)
    _, findings = rehearse(model, monkeypatch)
    assert [finding["name"] for finding in findings if not finding["ok"]] == ["overlapping at batch 1"]


def test_nothing_is_tried_on_a_gpu_that_is_lost(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_engine: TensorRtEngine, _batch: int) -> try_tensorrt.Finding:
        raise CudaLost("illegal address")

    monkeypatch.setattr(try_tensorrt, "_times", lost)
    _, findings = rehearse(model, monkeypatch)
    assert findings[-1] == {"name": "the GPU", "ok": False, "detail": "CudaLost: illegal address"}
    assert "second start" not in {finding["name"] for finding in findings}


def test_without_a_gpu_it_says_why(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU here")
    assert try_tensorrt.main([str(model), "--toolkit", TENSORRT_RTX]) == 1
    assert "FAILED  first start: " in capsys.readouterr().out
