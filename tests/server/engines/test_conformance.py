"""What every engine must do. A new engine joins with one line in `ENGINES`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.twin.profile import load_profile
from server.engines.engine import NUMPY_DTYPES, Array, Engine
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.simulated import SimulatedEngine, read_graph_specs
from server.errors import EngineError

MAX_BATCH = 5


def simulated(path: Path, max_batch: int | None) -> Engine:
    specs = read_graph_specs(path)
    gpu = SimulatedGpu(load_profile("v100"), clock=time.monotonic)
    return SimulatedEngine(gpu, "resnet50", specs.inputs, specs.outputs, max_batch or 0, sleep=lambda _: None)


def onnxruntime(path: Path, max_batch: int | None) -> Engine:
    return load_onnxruntime_engine(path, max_batch=max_batch, threads=1)


ENGINES: dict[str, Callable[[Path, int | None], Engine]] = {
    "onnxruntime": onnxruntime,
    "simulated": simulated,
}


@pytest.fixture(params=ENGINES)
def load(request: pytest.FixtureRequest) -> Callable[[Path, int | None], Engine]:
    return ENGINES[request.param]


@pytest.fixture
def engine(load: Callable[[Path, int | None], Engine], write_model: Callable[..., Path]) -> Iterator[Engine]:
    made = load(write_model(), MAX_BATCH)
    yield made
    made.close()


@pytest.fixture
def unbatched(
    load: Callable[[Path, int | None], Engine], write_model: Callable[..., Path]
) -> Iterator[Engine]:
    made = load(write_model(batch=2), None)
    yield made
    made.close()


def fill(engine: Engine, images: int) -> tuple[Array, ...]:
    dice = np.random.default_rng(images)
    for buffer in engine.input_buffers:
        buffer[...] = dice.integers(0, 255, buffer.shape).astype(buffer.dtype)
    return tuple(buffer[:images] for buffer in engine.input_buffers)


def check_outputs(engine: Engine, outputs: tuple[Array, ...], *rows: int) -> None:
    assert [output.shape for output in outputs] == [(*rows, *spec.shape) for spec in engine.outputs]
    assert [output.dtype for output in outputs] == [spec.dtype for spec in engine.outputs]


def test_specs_are_those_of_the_graph(engine: Engine) -> None:
    assert [(s.name, s.datatype, s.shape) for s in engine.inputs] == [("image", "UINT8", (6, 6, 3))]
    assert [(s.name, s.datatype, s.shape) for s in engine.outputs] == [
        ("scores", "FP32", (4,)),
        ("top", "INT64", ()),
    ]
    assert engine.max_batch == MAX_BATCH
    assert {spec.datatype for spec in engine.inputs + engine.outputs} <= NUMPY_DTYPES.keys()


def test_buffers_have_a_slot_per_image_and_stay_where_they_are(engine: Engine) -> None:
    buffers = engine.input_buffers
    assert [(b.shape, b.dtype) for b in buffers] == [((MAX_BATCH, *s.shape), s.dtype) for s in engine.inputs]
    assert all(buffer.flags.c_contiguous and buffer.flags.writeable for buffer in buffers)
    engine.run(fill(engine, 2))
    assert all(np.shares_memory(a, b) for a, b in zip(buffers, engine.input_buffers, strict=True))


@pytest.mark.parametrize("images", range(1, MAX_BATCH + 1))
def test_a_batch_of_any_size_gives_a_row_per_image(engine: Engine, images: int) -> None:
    check_outputs(engine, engine.run(fill(engine, images)), images)


def test_outputs_belong_to_the_caller(engine: Engine) -> None:
    first = engine.run(fill(engine, 3))
    kept = [output.copy() for output in first]
    engine.run(tuple(buffer[:3] for buffer in fill(engine, 4)))
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))
    assert not any(np.shares_memory(out, buffer) for out in first for buffer in engine.input_buffers)


def test_memory_of_others_is_read_where_the_engine_says_so(engine: Engine) -> None:
    inputs = fill(engine, 3)
    expected = engine.run(inputs)
    foreign = tuple(np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for array in inputs)
    if engine.reads_foreign_memory:
        outputs = engine.run(foreign)
        assert all(np.array_equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_a_batch_over_the_maximum_is_refused_and_the_next_one_runs(engine: Engine) -> None:
    large = tuple(np.zeros((MAX_BATCH + 1, *spec.shape), spec.dtype) for spec in engine.inputs)
    with pytest.raises(EngineError, match=f"1 to {MAX_BATCH} images"):
        engine.run(large)
    check_outputs(engine, engine.run(fill(engine, 1)), 1)


def test_a_closed_engine_says_so(engine: Engine) -> None:
    inputs = fill(engine, 1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(inputs)


def test_without_batch_dimension(unbatched: Engine) -> None:
    assert unbatched.max_batch == 0
    assert [spec.shape for spec in unbatched.inputs] == [(2, 6, 6, 3)]
    assert [buffer.shape for buffer in unbatched.input_buffers] == [(2, 6, 6, 3)]
    fill(unbatched, 0)
    check_outputs(unbatched, unbatched.run(unbatched.input_buffers))
