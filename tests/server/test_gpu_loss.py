"""A daemon whose GPU fails for good: clients are told, it shuts down in order, and its exit code says why."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from daemon_process import put_double

import server.daemon
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.config import Settings
from server.engine_factory import EngineFactory, engine_factory
from server.engines.engine import Array, Engine
from server.errors import ConfigError, CudaLost, EngineError
from server.gpu_loss import EXIT_GPU_LOST, GpuLoss
from server.models.repository import ModelEntry


class FailingEngine:
    """An engine that runs one batch, and then fails as it is told."""

    any_thread = False  # as a GPU's engine: in the engine's thread

    def __init__(self, engine: Engine, error: Exception) -> None:
        self._engine, self._error = engine, error
        self.batches = 0
        self.closed = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        self.batches += 1
        if self.batches > 1:
            raise self._error
        return self._engine.run(inputs)

    def close(self) -> None:
        self._engine.close()
        self.closed.set()


def message() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[np.zeros(4, "f4").tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    return request


async def served_until_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> tuple[asyncio.Task[int], FailingEngine, str]:
    """Start a daemon in this loop, let one batch pass and one fail; return what clients were told."""
    engines: list[FailingEngine] = []

    def factory(settings: Settings) -> EngineFactory:
        real = engine_factory(settings)

        def make(entry: ModelEntry) -> Engine:
            engines.append(FailingEngine(real.make(entry), error))
            return engines[-1]

        return replace(real, make=make)

    monkeypatch.setattr(server.daemon, "engine_factory", factory)
    ready = tmp_path / "ready.json"
    repository = put_double(tmp_path / "repository")
    settings = Settings(
        repository=repository, port=0, operator_port=0, no_metrics=True, ready_file=ready, state_dir=tmp_path
    )
    task = asyncio.create_task(server.daemon.serve(settings))
    while not ready.exists():
        await asyncio.sleep(0.01)
        assert not task.done(), task.result()
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{json.loads(ready.read_text())['grpc_port']}"
    ) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(message(), timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ModelInfer(message(), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    return task, engines[0], refused.value.details()


async def test_a_lost_gpu_ends_the_daemon_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = CudaLost("the GPU fell off the bus")
    task, engine, told = await served_until_it_fails(tmp_path, monkeypatch, lost)
    assert await asyncio.wait_for(task, 60) == EXIT_GPU_LOST == 75
    assert "fell off the bus" in told
    assert engine.closed.is_set()
    assert not (tmp_path / "ready.json").exists()


async def test_an_error_that_passes_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, engine, told = await served_until_it_fails(tmp_path, monkeypatch, EngineError("a bad batch"))
    assert "a bad batch" in told
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.closed.is_set()


async def start_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[ModelEntry], Engine]
) -> int:
    """Start a daemon in this loop with engines made so, and return its exit code."""
    monkeypatch.setattr(
        server.daemon, "engine_factory", lambda settings: replace(engine_factory(settings), make=make)
    )
    repository = put_double(tmp_path / "repository")
    settings = Settings(repository=repository, port=0, operator_port=0, no_metrics=True, state_dir=tmp_path)
    return await asyncio.wait_for(server.daemon.serve(settings), 60)


async def test_a_gpu_lost_while_models_load_is_told_likewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(_entry: ModelEntry) -> Engine:
        raise CudaLost("the GPU fell off the bus")

    assert await start_with(tmp_path, monkeypatch, make) == EXIT_GPU_LOST
    assert "the GPU fell off the bus; ending with exit code 75" in caplog.text


async def test_an_engine_that_cannot_be_made_is_another_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(_entry: ModelEntry) -> Engine:
        raise EngineError("no such operator")

    with pytest.raises(ConfigError, match=r"model 'double' cannot be served: .*no such operator"):
        await start_with(tmp_path, monkeypatch, make)


async def test_the_first_report_counts(caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()
    loss = GpuLoss(stop, patience_s=3600)
    assert (loss.happened, loss.exit_code) == (False, 0)
    for _ in range(3):
        loss.report(CudaLost("gone"))
    assert stop.is_set()
    assert loss.exit_code == EXIT_GPU_LOST
    assert caplog.text.count("gone; ending with exit code 75") == 1
    loss.over()


def test_once_the_daemon_has_shut_down_the_process_is_left_alone() -> None:
    script = (
        "import asyncio, time\n"
        "from server.errors import CudaLost\n"
        "from server.gpu_loss import GpuLoss\n"
        "loss = GpuLoss(asyncio.Event(), 0.3)\n"
        "loss.report(CudaLost('gone'))\n"
        "loss.over()\n"
        "time.sleep(1.0)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


async def test_the_daemon_leaves_no_watchdog_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _, _ = await served_until_it_fails(tmp_path, monkeypatch, CudaLost("the GPU fell off the bus"))
    await asyncio.wait_for(task, 60)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), "it would end whatever this process does next"


def test_a_driver_that_never_returns_does_not_keep_the_process() -> None:
    script = (
        "import asyncio, threading\n"
        "from server.errors import CudaLost\n"
        "from server.gpu_loss import GpuLoss\n"
        "GpuLoss(asyncio.Event(), 0.1).report(CudaLost('gone'))\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == EXIT_GPU_LOST
