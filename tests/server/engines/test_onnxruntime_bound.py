"""ONNX Runtime with bindings, on a simulated GPU (tests/services/fake_gpu.py) whose memory the CPU can reach.

Sessions, bindings and answers are real; copies to and from the GPU are done when somebody waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeCuda

from server.engines.device_rows import DeviceRows, Exchange, Placed, exchanging
from server.engines.engine import Array
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.onnxruntime_bound import BoundOnnxRuntimeEngine
from server.engines.padding import padded
from server.errors import CudaLost, EngineError


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda(real_addresses=True)


@pytest.fixture
def path(write_model: Callable[..., Path]) -> Path:
    return write_model()


@pytest.fixture
def engine(path: Path, cuda: FakeCuda) -> Iterator[BoundOnnxRuntimeEngine]:
    engine = load_onnxruntime_engine(path, max_batch=6, threads=1, cuda=cuda)
    assert isinstance(engine, BoundOnnxRuntimeEngine)
    yield engine
    engine.close()
    assert not cuda.memory


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 255, (count, 6, 6, 3), dtype=np.uint8)


def expected(path: Path, given: Array) -> tuple[Array, ...]:
    return load_onnxruntime_engine(path, max_batch=8, threads=1).run((given,))


def check(outputs: tuple[Array, ...], wanted: tuple[Array, ...]) -> None:
    for output, right in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(output, right, rtol=1e-5)
        assert output.dtype == right.dtype


def test_it_answers_as_without_bindings_at_every_size(path: Path, engine: BoundOnnxRuntimeEngine) -> None:
    for number, count in enumerate((1, 6, 3, 1, 4, 6, 2, 5)):
        given = images(count, number)
        engine.input_buffers[0][:count] = given
        check(engine.run((engine.input_buffers[0][:count],)), expected(path, given))


def test_a_batch_is_uploaded_before_and_downloaded_after_it_runs(
    engine: BoundOnnxRuntimeEngine, cuda: FakeCuda
) -> None:
    engine.run((images(2),))
    assert [what for what, _ in cuda.calls] == ["upload", "record", "download", "download", "record"]


def test_bindings_are_made_once_a_size_and_memory_never_again(
    engine: BoundOnnxRuntimeEngine, cuda: FakeCuda
) -> None:
    reserved = set(cuda.memory)
    for count in (1, 2, 1, 2, 1):
        engine.run((images(count),))
    assert set(engine._bindings) == {1, 2}
    assert set(cuda.memory) == reserved


def test_answers_belong_to_the_caller(path: Path, engine: BoundOnnxRuntimeEngine) -> None:
    first = engine.run((images(2, 1),))
    engine.run((images(2, 2),))
    check(first, expected(path, images(2, 1)))


def test_without_a_batch_dimension(write_model: Callable[..., Path], cuda: FakeCuda) -> None:
    path = write_model(batch=2)
    engine = load_onnxruntime_engine(path, threads=1, cuda=cuda)
    check(engine.run((images(2),)), load_onnxruntime_engine(path).run((images(2),)))
    engine.close()


def test_clients_memory_on_the_gpu(path: Path, engine: BoundOnnxRuntimeEngine, cuda: FakeCuda) -> None:
    """Padded to a size, rows from host and GPU together, one output back to the client."""
    given = images(4)
    handle, client = cuda.export(1000)
    with cuda.bound():
        mapped = cuda.foreign_memory(handle)
    client.bytes[:216] = given[1:3].reshape(-1)
    source = DeviceRows(mapped, 0, (2, 6, 6, 3), np.dtype(np.uint8))
    target = DeviceRows(mapped, 512, (4, 4), np.dtype("f4"))
    slots = engine.input_buffers[0][:4]
    slots[:] = given
    slots[1:3] = 0
    outputs = engine.run((slots,), Exchange([Placed(0, 1, source)], [Placed(0, 0, target)]))
    scores, top = expected(path, given)
    np.testing.assert_allclose(client.bytes[512:576].view("f4").reshape(4, 4), scores, rtol=1e-5)
    np.testing.assert_array_equal(outputs[1], top)
    assert exchanging(engine) is engine
    with cuda.bound():
        mapped.close()


def test_served_sizes_are_padded(path: Path, cuda: FakeCuda) -> None:
    engine = padded(load_onnxruntime_engine(path, max_batch=4, threads=1, served_batches=(2, 4), cuda=cuda))
    check(engine.run((images(3),)), expected(path, images(3)))
    assert engine.padded_images == 1
    engine.close()


def test_wrong_input_is_refused_and_the_next_batch_runs(path: Path, engine: BoundOnnxRuntimeEngine) -> None:
    with pytest.raises(EngineError, match="1 to 6 images, got 7"):
        engine.run((images(7),))
    check(engine.run((images(2),)), expected(path, images(2)))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run((images(1),))


def test_a_copy_that_fails_passes_and_a_lost_gpu_does_not(
    path: Path, engine: BoundOnnxRuntimeEngine, cuda: FakeCuda
) -> None:
    cuda.failures.append("memcpy_htod")
    with pytest.raises(EngineError, match="CUDA failed on Simulated A100") as passed:
        engine.run((images(1),))
    assert not isinstance(passed.value, CudaLost)
    check(engine.run((images(1),)), expected(path, images(1)))
    cuda.broken = True
    with pytest.raises(CudaLost):
        engine.run((images(1),))
    cuda.memory.clear()  # it goes with the process


def test_too_little_memory_leaves_nothing(path: Path, cuda: FakeCuda) -> None:
    cuda.failures.append("mem_alloc")
    with pytest.raises(EngineError, match="out of memory"):
        load_onnxruntime_engine(path, max_batch=4, cuda=cuda)
    assert not cuda.memory
