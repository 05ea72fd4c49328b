from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from daemon_process import double_model, put_profile
from onnx import TensorProto, helper

from optimizer.devices.cpu_package import RaplCpu
from server.config import Settings
from server.engine_factory import device_note, engine_factory
from server.engines.engine import Engine
from server.engines.registry import EngineKind, EngineRequest
from server.errors import ConfigError, EngineError
from server.models.repository import ModelEntry


@pytest.fixture
def entry(tmp_path: Path) -> ModelEntry:
    path = tmp_path / "double.onnx"
    path.write_bytes(double_model().SerializeToString())
    return ModelEntry("double", 1, path, (), None, None)


@pytest.fixture
def whole(tmp_path: Path) -> ModelEntry:
    """A network without a batch dimension."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "whole", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path = tmp_path / "whole.onnx"
    path.write_bytes(model.SerializeToString())
    return ModelEntry("double", 1, path, (), None, None)


def settings(**given: object) -> Settings:
    return Settings(repository=Path("models"), **given)


def simulated(directory: Path, **given: object) -> Settings:
    return settings(engine="simulated", gpu=str(put_profile(directory, 1.0)), **given)


def outputs(engine: Engine) -> np.ndarray:
    return engine.run((np.ones((1, 4), np.float32),))[0]


def test_onnxruntime_computes(entry: ModelEntry) -> None:
    engine = engine_factory(settings(threads=1)).make(entry)
    assert np.array_equal(outputs(engine), np.full((1, 4), 2, np.float32))
    engine.close()


def test_a_simulated_engine_answers_zeros(tmp_path: Path, entry: ModelEntry) -> None:
    engine = engine_factory(simulated(tmp_path)).make(entry)
    assert np.array_equal(outputs(engine), np.zeros((1, 4), np.float32))


@pytest.mark.parametrize(
    ("flag", "config", "largest"), [(None, None, 64), (8, None, 8), (8, 16, 8), (16, 8, 8), (None, 8, 8)]
)
def test_the_smaller_limit_of_flag_and_model_holds(
    tmp_path: Path, entry: ModelEntry, flag: int | None, config: int | None, largest: int
) -> None:
    model = replace(entry, max_batch=config)
    for chosen in (settings(max_batch=flag), simulated(tmp_path, max_batch=flag)):
        assert engine_factory(chosen).make(model).max_batch == largest


def test_the_flag_says_nothing_about_a_network_without_a_batch_dimension(
    tmp_path: Path, whole: ModelEntry
) -> None:
    for chosen in (settings(max_batch=8), simulated(tmp_path, max_batch=8)):
        assert engine_factory(chosen).make(whole).max_batch == 0


def test_the_profile_s_model_is_the_entry_s_name_unless_another_is_named(
    tmp_path: Path, entry: ModelEntry
) -> None:
    other = replace(entry, name="other")
    with pytest.raises(EngineError, match="has no model 'other'; it has double; choose one with --simulated"):
        engine_factory(simulated(tmp_path)).make(other)
    engine_factory(simulated(tmp_path, simulated_model="double")).make(other)
    with pytest.raises(ConfigError, match="has no model 'triple'"):
        engine_factory(simulated(tmp_path, simulated_model="triple"))


def test_all_simulated_engines_share_one_gpu(
    tmp_path: Path, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = engine_factory(simulated(tmp_path))
    executed: list[tuple[str, int]] = []
    monkeypatch.setattr(factory.device, "execute", lambda *batch: executed.append(batch) or 0.0)
    for engine in (factory.make(entry), factory.make(entry)):
        outputs(engine)
    assert executed == [("double", 1), ("double", 1)]


def test_what_an_operator_must_know_of_the_device(tmp_path: Path) -> None:
    assert "all answers are zeros" in device_note(engine_factory(simulated(tmp_path)).device)
    unreadable = RaplCpu(tmp_path / "no-powercap")
    assert device_note(unreadable) == ""
    unreadable.read()
    assert "energy is not measured: no RAPL package" in device_note(unreadable)


def test_an_engine_on_the_cpu_governs_no_gpu() -> None:
    with pytest.raises(ConfigError, match="--device 0 would govern a GPU that does none of the work"):
        engine_factory(settings(device="0"))
    assert engine_factory(settings(device="cpu")).device.uuid == "cpu-package"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EngineRequest]:
    """What an engine was asked for; none is loaded."""
    asked: list[EngineRequest] = []
    kind = EngineKind("onnxruntime", "cpu", "", "", asked.append)
    monkeypatch.setattr(EngineKind, "load", lambda self, request: self.open(request))
    monkeypatch.setattr("server.engine_factory.engine_kind", lambda _name: kind)
    return asked


def test_engines_are_kept_in_the_state_directory(
    tmp_path: Path, entry: ModelEntry, asked: list[EngineRequest]
) -> None:
    engine_factory(settings(threads=3, max_batch=8, state_dir=tmp_path / "state")).make(entry)
    assert asked == [
        EngineRequest(entry.onnx_path, max_batch=8, threads=3, cache_dir=tmp_path / "state" / "engines")
    ]


@pytest.mark.parametrize(
    ("model_s", "sizes"), [(None, (1, 8, 32)), (64, (1, 8, 32)), (16, (1, 8, 16)), (8, (1, 8)), (1, (1,))]
)
def test_served_batches_end_with_the_model_s_own_limit(
    entry: ModelEntry, asked: list[EngineRequest], model_s: int | None, sizes: tuple[int, ...]
) -> None:
    engine_factory(settings(served_batches=(1, 8, 32))).make(replace(entry, max_batch=model_s))
    assert (asked[0].served_batches, asked[0].max_batch) == (sizes, sizes[-1])


def test_served_batches_say_nothing_about_a_network_without_a_batch_dimension(
    whole: ModelEntry, asked: list[EngineRequest]
) -> None:
    engine_factory(settings(served_batches=(1, 8))).make(whole)
    assert (asked[0].served_batches, asked[0].max_batch) == ((), None)


def test_batches_are_padded_to_the_sizes_that_were_asked_for(entry: ModelEntry) -> None:
    engine = engine_factory(settings(threads=1, served_batches=(2, 4))).make(entry)
    assert (engine.served_batches, engine.max_batch) == ((2, 4), 4)
    outputs(engine)
    assert engine.padded_images == 1
    engine.close()


@pytest.mark.parametrize(("missing_plan", "build"), [("build", True), ("refuse", False)])
def test_whether_plans_may_be_built_is_passed_on(
    entry: ModelEntry, asked: list[EngineRequest], missing_plan: str, build: bool
) -> None:
    chosen = settings(engine="tensorrt", missing_plan=missing_plan)
    engine_factory(chosen).make(entry)
    assert asked[0].build_missing is build


def test_memory_shared_on_the_gpu_needs_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine_factory.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"--cuda-shared-memory needs the module pycuda: .*boulton\[gpu\]"):
        engine_factory(settings(engine="onnxruntime-cuda", cuda_shared_memory=True))
