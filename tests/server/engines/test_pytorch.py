"""The PyTorch engine beyond what all engines share: threads, devices, compilation, memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import padded
from server.engines.registry import ENGINE_KINDS, EngineRequest
from server.errors import EngineError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'boulton[torch]'")

from server.engines.pytorch.engine import (  # noqa: E402 - needs torch
    best_device,
    load_compiled_pytorch_engine,
    load_pytorch_engine,
)
from server.engines.pytorch.runners import recorded, recorded_where_it_can_be  # noqa: E402

WriteModel = Callable[..., Path]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)


def test_it_says_how_and_where_it_runs(write_model: WriteModel) -> None:
    eager = load_pytorch_engine(write_model(), device="cpu")
    compiled = load_compiled_pytorch_engine(write_model(), max_batch=1, device="cpu", backend="eager")
    assert (eager.platform, compiled.platform) == ("pytorch_eager_cpu", "pytorch_compiled_cpu")


def test_compiled_to_machine_code_it_answers_as_onnxruntime(write_model: WriteModel) -> None:
    if (reason := ENGINE_KINDS["pytorch-compiled"].available()) is not None:
        pytest.skip(reason)
    path = write_model()
    request = EngineRequest(path, max_batch=2, threads=1, served_batches=(2,))
    engine = ENGINE_KINDS["pytorch-compiled"].load(request)
    expected = load_onnxruntime_engine(path, threads=1).run((images(1),))
    outputs = engine.run((images(1),))
    np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-4)
    assert outputs[1].tolist() == expected[1].tolist()
    engine.close()


def test_compiling_covers_powers_of_two_where_no_sizes_are_named(write_model: WriteModel) -> None:
    engine = load_compiled_pytorch_engine(write_model(), max_batch=6, backend="eager")
    assert engine.served_batches == (1, 2, 4, 6)


def test_each_size_is_compiled_once_and_before_it_is_needed(write_model: WriteModel) -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[object]) -> Callable[..., object]:
        compiled.append(next(value.shape[0] for value in inputs if getattr(value, "dtype", 0) == torch.uint8))
        return graph.forward

    sizes = tuple(range(1, 13))  # more than PyTorch would compile one piece of code for
    engine = load_compiled_pytorch_engine(
        write_model(), max_batch=12, threads=1, served_batches=sizes, backend=backend
    )
    assert compiled == list(sizes)
    thread = threading.Thread(target=lambda: [engine.run((images(count),)) for count in sizes])
    thread.start()
    thread.join()
    assert compiled == list(sizes)


def test_a_network_that_does_not_compile_is_refused(write_model: WriteModel) -> None:
    def backend(graph: object, inputs: object) -> Callable[..., object]:
        raise RuntimeError("no kernel for this")

    with pytest.raises(EngineError, match=r"cannot compile .*no kernel for this.*use the engine pytorch"):
        load_compiled_pytorch_engine(write_model(), max_batch=1, backend=backend)


def test_sizes_that_were_named_hold_without_compiling_too(write_model: WriteModel) -> None:
    engine = load_pytorch_engine(write_model(), max_batch=4, served_batches=(2, 4))
    assert engine.served_batches == (2, 4)
    assert len(engine.run((images(4),))[0]) == 4


def test_a_size_that_is_not_served_is_refused_without_the_adapter(write_model: WriteModel) -> None:
    engine = load_compiled_pytorch_engine(write_model(), max_batch=4, served_batches=(2, 4), backend="eager")
    with pytest.raises(EngineError, match="batches of 2, 4 are served, not 3"):
        engine.run((images(3),))
    assert len(padded(engine).run((images(3),))[0]) == 3


def test_the_threads_asked_for_are_those_of_the_thread_that_runs(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(torch, "set_num_threads", lambda count: asked.append((count, threading.get_ident())))
    engine = load_pytorch_engine(write_model(), max_batch=2, threads=3)
    engine.run((images(1),))
    engine.run((images(2),))
    assert asked == [(3, threading.get_ident())]
    thread = threading.Thread(target=engine.run, args=((images(1),),))
    thread.start()
    thread.join()
    assert [count for count, _ in asked] == [3, 3]
    assert asked[0][1] != asked[1][1]


def test_left_open_the_number_of_threads_is_pytorchs(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail(f"set to {count}"))
    load_pytorch_engine(write_model(), max_batch=2).run((images(1),))


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device(3) == "cpu"


def test_a_gpu_is_taken_by_its_index_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert best_device(1) == "cuda:1"
    with pytest.raises(EngineError, match="sees the GPUs 0 to 1, not GPU 2"):
        best_device(2)


def test_half_precision_is_the_files(write_model: WriteModel, tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "w"], ["made"]),
        helper.make_node("Cast", ["made"], ["y"], to=TensorProto.FLOAT),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4, 6, 6))
    graph = helper.make_graph(nodes, "half", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    engine = load_pytorch_engine(path, max_batch=2, device="cpu")
    assert {buffer.dtype for buffer in engine._runners[0].module.buffers()} == {torch.float16}
    batch = np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = load_onnxruntime_engine(path).run((batch,))[0]
    np.testing.assert_allclose(engine.run((batch,))[0], expected, rtol=2e-2, atol=2e-2)


def test_weights_are_channels_last(write_model: WriteModel) -> None:
    engine = load_pytorch_engine(write_model(), max_batch=2)
    (kernel,) = (buffer for buffer in engine._runners[0].module.buffers() if buffer.dim() == 4)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_an_output_that_is_the_input_does_not_change_with_the_next_batch(
    write_identity: WriteModel,
) -> None:
    engine = load_pytorch_engine(write_identity(("x", TensorProto.FLOAT, ("n", 2))), max_batch=2)
    (first,) = engine.run((np.ones((2, 2), np.float32),))
    engine.run((np.zeros((2, 2), np.float32),))
    assert first.tolist() == [[1, 1], [1, 1]]


def test_what_pytorch_raises_is_an_engine_error_and_the_engine_remains_usable(
    write_model: WriteModel, tmp_path: Path
) -> None:
    table = onnx.numpy_helper.from_array(np.array([10.0, 20.0], np.float32), "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ("n", 1))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1))
    graph = helper.make_graph([node], "look_up", [x], [y], [table])
    path = tmp_path / "look_up.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    engine = load_pytorch_engine(path, max_batch=2)
    with pytest.raises(EngineError, match="PyTorch failed: "):
        engine.run((np.array([[99]]),))
    assert engine.run((np.array([[1]]),))[0].tolist() == [[20.0]]


def test_without_a_compiler_or_a_gpu_the_registry_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "a-compiler-that-nobody-has")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = ENGINE_KINDS["pytorch-compiled"].available()
    assert reason is not None
    assert "there is no a-compiler-that-nobody-has: apt-get install g++" in reason
    assert ENGINE_KINDS["pytorch"].available() is None


def test_a_gpu_needs_no_compiler_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "a-compiler-that-nobody-has")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ENGINE_KINDS["pytorch-compiled"].available() is None


class TestCudaGraphs:
    """No GPU here: what is asked of PyTorch, in which order, is recorded by a stand-in for `torch.cuda`."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        made: list[str] = []

        class Stream:
            def __init__(self, device: object) -> None:
                made.append("stream")

            def wait_stream(self, other: object) -> None:
                made.append("wait for the current stream")

            def synchronize(self) -> None:
                made.append("synchronize")

        class Graph:
            def replay(self) -> None:
                made.append("replay")

        @contextmanager
        def recording(graph: Graph, stream: Stream) -> Iterator[None]:
            made.append("record")
            yield
            made.append("recorded")

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
        monkeypatch.setattr(torch.cuda, "stream", nullcontext)
        monkeypatch.setattr(torch.cuda, "graph", recording)
        return made

    def test_a_run_is_warmed_up_aside_then_recorded_once_and_played_back(self, calls: list[str]) -> None:
        rows = (torch.ones(2),)

        def run(given: object) -> tuple[object, ...]:
            assert given is rows[0]
            calls.append("run")
            return (rows[0] * 2,)

        play = recorded(run, rows)
        assert calls[:2] == ["stream", "wait for the current stream"]
        assert calls[2:] == ["run"] * (calls.count("run") - 1) + ["synchronize", "record", "run", "recorded"]
        assert calls.count("run") > 1
        calls.clear()
        assert play(rows[0])[0] is play(rows[0])[0]
        assert calls == ["replay", "replay"]

    def test_what_cannot_be_recorded_runs_as_it_is(
        self, calls: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        @contextmanager
        def refusing(*_given: object, **_named: object) -> Iterator[None]:
            yield
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(torch.cuda, "graph", refusing)
        rows = (torch.ones(2),)

        def run(given: object) -> tuple[object, ...]:
            del given
            calls.append("run")
            return rows

        assert recorded_where_it_can_be(run, rows) is run
        assert "runs without CUDA graphs: operation not permitted" in caplog.text

    def test_a_gpu_that_is_lost_is_not_taken_for_a_refusal(self, calls: list[str]) -> None:
        def lost(_given: object) -> tuple[object, ...]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        with pytest.raises(RuntimeError, match="illegal memory access"):
            recorded_where_it_can_be(lost, (torch.ones(2),))
        assert "recorded" not in calls
