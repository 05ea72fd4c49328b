from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.engines import registry
from server.engines.engine import Engine
from server.engines.registry import ENGINE_KINDS, EngineKind, EngineRequest, engine_kind, engine_names
from server.errors import EngineError

WriteModel = Callable[..., Path]
ONNXRUNTIME = ENGINE_KINDS["onnxruntime"]


def never(request: EngineRequest) -> Engine:
    raise AssertionError(f"{request} must not be opened")


def test_every_kind_goes_by_its_name() -> None:
    assert [kind.name for kind in ENGINE_KINDS.values()] == list(ENGINE_KINDS)
    assert all(engine_kind(name) is ENGINE_KINDS[name] for name in engine_names(served=False))


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(EngineError, match=r"no engine is called 'caffe'; there are onnxruntime, "):
        engine_kind("caffe")


def test_what_is_only_compared_with_is_not_served() -> None:
    compared = {name for name, kind in ENGINE_KINDS.items() if kind.for_comparison}
    assert set(engine_names(served=False)) - set(engine_names()) == compared


def test_onnxruntime_is_there_and_loads(write_model: WriteModel) -> None:
    assert ONNXRUNTIME.available() is None
    engine = ONNXRUNTIME.load(EngineRequest(write_model(), max_batch=3, threads=1))
    assert engine.max_batch == 3
    assert engine.served_batches == ()
    engine.close()


def test_sizes_that_were_named_are_those_that_run(write_model: WriteModel) -> None:
    engine = ONNXRUNTIME.load(EngineRequest(write_model(), max_batch=4, threads=1, served_batches=(2, 4)))
    assert engine.served_batches == (2, 4)
    scores, top = engine.run((np.zeros((3, 6, 6, 3), np.uint8),))
    assert (len(scores), len(top), engine.padded_images) == (3, 3, 1)
    engine.close()


def test_sizes_that_do_not_fit_the_largest_batch(write_model: WriteModel) -> None:
    with pytest.raises(EngineError, match="end with the largest batch, 4; got 2, 3"):
        ONNXRUNTIME.load(EngineRequest(write_model(), max_batch=4, served_batches=(2, 3)))


def test_a_missing_module_is_named_with_what_to_install() -> None:
    kind = EngineKind("caffe", "gpu", ("caffe_that_nobody_has", "caffe2_either"), "pip install caffe", never)
    reason = "caffe needs the module caffe_that_nobody_has or caffe2_either: pip install caffe"
    assert kind.available() == reason
    with pytest.raises(EngineError, match=reason):
        kind.load(EngineRequest(Path("model.onnx")))


def test_another_obstacle_is_said_too() -> None:
    kind = replace(ONNXRUNTIME, open=never, obstacle=lambda: "no GPU is in sight")
    assert kind.available() == "onnxruntime: no GPU is in sight"


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_without_an_nvidia_driver_tensorrt_is_not_tried(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_has_driver", lambda: False)
    kind = replace(ENGINE_KINDS[name], modules=(), open=never)
    with pytest.raises(EngineError, match=rf"{name}: there is no NVIDIA driver here"):
        kind.load(EngineRequest(Path("model.onnx")))


def test_with_a_driver_tensorrt_needs_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_has_driver", lambda: True)
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "pycuda" else name)
    assert ENGINE_KINDS["tensorrt"].available() == (
        "tensorrt: it needs the module pycuda: pip install 'boulton[gpu]'"
    )


def test_an_engine_that_cannot_be_padded_is_closed() -> None:
    class Odd:
        served_batches = (3, 2)
        max_batch = 4
        closed = False

        def close(self) -> None:
            self.closed = True

    odd = Odd()
    kind = EngineKind("odd", "cpu", (), "", lambda _: odd)  # type: ignore[arg-type,return-value]
    with pytest.raises(EngineError, match="served batch sizes"):
        kind.load(EngineRequest(Path("model.onnx")))
    assert odd.closed


def test_no_framework_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, server.engines.registry as registry\n"
        "registry.engine_names()\n"
        "print([name for name in ('onnxruntime', 'torch', 'tensorflow', 'tensorrt') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
