"""The process of an engine: in this process over a real pipe, and for real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from bench.compare.measuring import Runner
from bench.compare.process import Worker, WorkerFailed
from bench.compare.settling import SettlingRule
from bench.compare.worker import Began, Failed, Measure, Ran, Ready, Stop, Warm, Warmed, obey, runs_on_gpu
from server.engines.engine import Array, Engine
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.registry import EngineRequest
from server.errors import CudaLost, EngineError

RULE = SettlingRule(block_s=0.001, tolerance=10.0, limit_s=0.5)
WITHIN_S = 60.0


class Frail:
    """A real engine that fails on batches of 4, and loses the GPU on batches of 8."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(inputs[0]) == 4:
            raise MemoryError("no room for 4")
        if len(inputs[0]) == 8:
            raise CudaLost("the GPU is gone")
        return self._engine.run(inputs)


class TwoAtOnce:
    """A real engine that takes a batch while it computes another, with slots that change each time."""

    overlaps = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = [tuple(np.zeros_like(b) for b in engine.input_buffers) for _ in range(2)]
        self._begun: list[tuple[Array, ...]] = []
        self.most_under_way = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        return self._slots[0]

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self._slots[0])

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        self.begin(inputs)
        return self.finish()

    def begin(self, inputs: tuple[Array, ...]) -> None:
        assert inputs[0].any(), "zeros cost less than pictures"
        self._begun.append(self._engine.run(inputs))
        self._slots.reverse()
        self.most_under_way = max(self.most_under_way, len(self._begun))
        assert len(self._begun) <= 2

    def finish(self) -> tuple[Array, ...]:
        return self._begun.pop(0)


def request(network: Path, *batches: int) -> EngineRequest:
    return EngineRequest(network, max_batch=max(batches), threads=1, served_batches=batches)


@contextmanager
def obeying(network: Path, wrap: Callable[[Engine], Engine] = lambda engine: engine) -> Iterator[Connection]:
    ours, theirs = Pipe()

    def load(name: str, wanted: EngineRequest) -> Engine:
        assert name == "onnxruntime"
        return wrap(load_onnxruntime_engine(wanted.onnx_path, max_batch=wanted.max_batch))

    def serve() -> None:
        obey(theirs, "onnxruntime", request(network, 1, 4, 8), load)
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def answer(connection: Connection) -> object:
    assert connection.poll(WITHIN_S)
    return connection.recv()


def test_orders_are_carried_out(network: Path) -> None:
    with obeying(network) as connection:
        assert answer(connection) == Ready("onnxruntime_onnx", on_gpu=False)
        connection.send(Warm(4, RULE))
        warmed = answer(connection)
        assert isinstance(warmed, Warmed)
        assert warmed.host_peak_mib > 1.0
        connection.send(Measure(4, 0.001))
        assert answer(connection) == Began()
        connection.send(Stop())
        ran = answer(connection)
        assert isinstance(ran, Ran)
        assert ran.batches >= 3
        assert 1 <= len(ran.latencies_ms) <= ran.batches
        connection.send(None)


def test_a_batch_that_fails_leaves_the_others(network: Path) -> None:
    with obeying(network, Frail) as connection:  # type: ignore[arg-type]
        answer(connection)
        connection.send(Warm(4, RULE))
        assert answer(connection) == Failed("MemoryError: no room for 4", final=False)
        connection.send(Warm(1, RULE))
        assert isinstance(answer(connection), Warmed)
        connection.send(Warm(8, RULE))
        assert answer(connection) == Failed("the GPU is gone", final=True)


def test_an_engine_that_cannot_be_loaded_says_why() -> None:
    ours, theirs = Pipe()

    def load(_name: str, _request: EngineRequest) -> Engine:
        raise EngineError("no such operator")

    obey(theirs, "onnxruntime", request(Path("x.onnx"), 1), load)
    assert answer(ours) == Failed("no such operator", final=True)


def test_overlapping_engines_are_measured_as_they_are_served(network: Path) -> None:
    engine = TwoAtOnce(load_onnxruntime_engine(network, max_batch=4))
    runner = Runner(engine)  # type: ignore[arg-type]
    asked = iter([False] * 5)
    ran = runner.measure(4, 0.001, lambda: None, lambda: next(asked, True))
    assert engine.most_under_way == 2
    assert ran.count >= 3
    assert len(ran.latencies_s) >= 3
    assert not engine._begun  # nothing stays under way


def test_who_runs_on_a_gpu() -> None:
    assert not runs_on_gpu("onnxruntime", "onnxruntime_onnx")
    assert not runs_on_gpu("pytorch", "pytorch_eager_cpu")
    assert runs_on_gpu("pytorch", "pytorch_eager_cuda")
    assert runs_on_gpu("tensorflow", "tensorflow_gpu")
    assert runs_on_gpu("tensorrt", "tensorrt_plan")


def test_a_real_process(network: Path, tmp_path: Path) -> None:
    worker = Worker("onnxruntime", request(network, 1, 2), tmp_path / "log")
    try:
        ready, seconds = worker.start(WITHIN_S)
        assert ready.platform == "onnxruntime_onnx"
        assert seconds > 0
        assert worker.warm_up(2, RULE).seconds > 0
        done: list[int] = []
        assert worker.measure(2, 0.001, lambda: done.append(1)).batches >= 3
        assert done == [1]
    finally:
        worker.close()
    with pytest.raises(WorkerFailed, match="not running"):
        worker.warm_up(1, RULE)


def test_a_process_that_is_killed_is_reported(network: Path, tmp_path: Path) -> None:
    worker = Worker("onnxruntime", request(network, 1), tmp_path / "log")
    worker.start(WITHIN_S)
    assert worker._process is not None
    worker._process.kill()
    with pytest.raises(WorkerFailed, match="ended with signal 9") as failed:
        worker.warm_up(1, RULE)
    assert failed.value.final
    worker.close()


def test_a_file_that_is_no_network_is_reported_by_the_process(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"nonsense")
    worker = Worker("onnxruntime", request(path, 1), tmp_path / "log")
    with pytest.raises(WorkerFailed, match=r"cannot load .*bad\.onnx"):
        worker.start(WITHIN_S)
    worker.close()
