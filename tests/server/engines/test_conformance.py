"""What every engine must do. A new one joins through the registry, and is skipped where it is not installed.

Engines that serve certain batch sizes only stand behind the adapter that fills batches up, as in the server.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeRuntimeModule
from onnx import TensorProto

from optimizer.devices.simulated import SimulatedGpu
from optimizer.twin.profile import load_profile
from server.engines.engine import NUMPY_DTYPES, Array, Engine
from server.engines.graph_specs import read_graph_specs
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import default_served_batches, padded
from server.engines.registry import ENGINE_KINDS, EngineRequest
from server.engines.simulated import SimulatedEngine
from server.engines.tensorrt.loading import load_tensorrt_engine
from server.engines.tensorrt.toolkit import TENSORRT_RTX, load_toolkit
from server.errors import EngineError

MAX_BATCH = 5

Load = Callable[[Path, int | None], Engine]


def simulated(path: Path, max_batch: int | None) -> Engine:
    specs = read_graph_specs(path)
    gpu = SimulatedGpu(load_profile("v100"), clock=time.monotonic)
    return SimulatedEngine(gpu, "resnet50", specs.inputs, specs.outputs, max_batch or 0, sleep=lambda _: None)


def pytorch_compiled(path: Path, max_batch: int | None) -> Engine:
    """Compiled without the last step, which takes seconds a size and is tested once, in test_pytorch.py."""
    from server.engines.pytorch.engine import load_compiled_pytorch_engine

    return padded(load_compiled_pytorch_engine(path, max_batch=max_batch, threads=1, backend="aot_eager"))


def sizes_named(path: Path, max_batch: int | None) -> Engine:
    sizes = (2, MAX_BATCH) if max_batch else ()
    return ENGINE_KINDS["onnxruntime"].load(
        EngineRequest(path, max_batch=max_batch, threads=1, served_batches=sizes)
    )


def tensorrt_simulated(path: Path, max_batch: int | None) -> Engine:
    """Plans are really built; the GPU that runs them is simulated."""
    sizes = default_served_batches(max_batch or 0)
    toolkit, cuda = load_toolkit(TENSORRT_RTX), FakeCuda()
    module = FakeRuntimeModule(toolkit.trt, cuda, path, sizes)
    return padded(
        load_tensorrt_engine(
            path,
            toolkit=TENSORRT_RTX,
            served_batches=sizes,
            open_device=lambda _: cuda,
            find_toolkit=lambda _: replace(toolkit, trt=module),
        )
    )


def onnxruntime_bound(path: Path, max_batch: int | None) -> Engine:
    """Bindings and answers are real; the GPU's memory, and copies there and back, are simulated."""
    return load_onnxruntime_engine(path, max_batch=max_batch, threads=1, cuda=FakeCuda(real_addresses=True))


def registered(name: str) -> Load:
    return lambda path, max_batch: ENGINE_KINDS[name].load(EngineRequest(path, max_batch, threads=1))


ENGINES: dict[str, Load] = {
    **{name: registered(name) for name in ENGINE_KINDS},
    "pytorch-compiled": pytorch_compiled,
    "onnxruntime in two sizes": sizes_named,
    "onnxruntime bound, GPU simulated": onnxruntime_bound,
    "simulated": simulated,
    **({"tensorrt-rtx, GPU simulated": tensorrt_simulated} if find_spec("tensorrt_rtx_bindings") else {}),
}


INSTALLED = [name for name in ENGINES if name not in ENGINE_KINDS or ENGINE_KINDS[name].available() is None]


@pytest.fixture(params=INSTALLED)
def load(request: pytest.FixtureRequest) -> Load:
    return ENGINES[request.param]


@pytest.mark.parametrize("name", sorted(ENGINE_KINDS.keys() - set(INSTALLED)))
def test_an_engine_that_is_missing_says_why(name: str, write_model: Callable[..., Path]) -> None:
    reason = ENGINE_KINDS[name].available()
    with pytest.raises(EngineError) as raised:
        ENGINE_KINDS[name].load(EngineRequest(write_model()))
    assert str(raised.value) == reason
    pytest.skip(str(reason))


@pytest.fixture
def engine(load: Load, write_model: Callable[..., Path]) -> Iterator[Engine]:
    made = load(write_model(), MAX_BATCH)
    yield made
    made.close()


@pytest.fixture
def unbatched(load: Load, write_model: Callable[..., Path]) -> Iterator[Engine]:
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
def test_slots_are_the_first_rows_and_answered_like_any_others(engine: Engine, images: int) -> None:
    given = [array.copy() for array in fill(engine, images)]
    expected = engine.run(tuple(given))
    slots = engine.slots(images)
    assert [(s.shape, s.dtype) for s in slots] == [((images, *s.shape), s.dtype) for s in engine.inputs]
    for _ in range(3):
        assert engine.slots(images) is slots
        for slot, buffer, array in zip(slots, engine.input_buffers, given, strict=True):
            buffer[...] = 0
            slot[...] = array
            assert np.array_equal(buffer[:images], array)
        outputs = engine.run(slots)
        check_outputs(engine, outputs, images)
        for output, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output, wanted, rtol=1e-6)


@pytest.mark.parametrize("images", [-1, 0, MAX_BATCH + 1])
def test_there_are_no_more_slots_than_the_largest_batch(engine: Engine, images: int) -> None:
    with pytest.raises(EngineError, match=f"1 to {MAX_BATCH} images, got {images}"):
        engine.slots(images)


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


def test_nor_does_it_run_its_own_slots_then(engine: Engine) -> None:
    fill(engine, 3)
    slots = engine.slots(3)
    engine.run(slots)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(slots)


def test_without_batch_dimension(unbatched: Engine) -> None:
    assert unbatched.max_batch == 0
    assert [spec.shape for spec in unbatched.inputs] == [(2, 6, 6, 3)]
    assert [buffer.shape for buffer in unbatched.input_buffers] == [(2, 6, 6, 3)]
    fill(unbatched, 0)
    check_outputs(unbatched, unbatched.run(unbatched.input_buffers))
    assert all(map(np.shares_memory, unbatched.slots(1), unbatched.input_buffers))
    check_outputs(unbatched, unbatched.run(unbatched.slots(1)))


def test_a_single_number_is_a_tensor_too(load: Load, write_identity: Callable[..., Path]) -> None:
    engine = load(write_identity(("x", TensorProto.FLOAT, ())), None)
    for given in (np.float32(3), np.float32(4)):
        (out,) = engine.run((np.array(given),))
        assert out.shape == ()
        engine.input_buffers[0][...] = given
        (out,) = engine.run(engine.slots(1))
        assert engine.simulated or out == given
    engine.close()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 6, 6), np.uint8),
        ((2, 6, 6, 4), np.uint8),
        ((2, 6, 6, 3), np.float32),
        ((2, 6, 6, 3), np.int8),
        ((0, 6, 6, 3), np.uint8),
    ],
)
def test_wrong_input_is_refused_and_the_next_batch_runs(
    engine: Engine, shape: tuple[int, ...], dtype: type
) -> None:
    with pytest.raises(EngineError):
        engine.run((np.zeros(shape, dtype),))
    with pytest.raises(EngineError):
        engine.run((*fill(engine, 1), *fill(engine, 1)))
    check_outputs(engine, engine.run(fill(engine, 2)), 2)


def test_what_is_not_contiguous_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineError):
        engine.run((np.zeros((2, 6, 3, 6), np.uint8).transpose(0, 1, 3, 2),))


def test_sizes_served_end_with_the_largest_batch(engine: Engine) -> None:
    assert engine.served_batches == () or engine.served_batches[-1] == engine.max_batch
    assert list(engine.served_batches) == sorted(set(engine.served_batches))


def test_rows_computed_in_vain_are_counted(engine: Engine) -> None:
    for images in range(1, MAX_BATCH + 1):
        engine.run(fill(engine, images))
    sizes = engine.served_batches or range(1, MAX_BATCH + 1)
    ran = [min(size for size in sizes if size >= images) for images in range(1, MAX_BATCH + 1)]
    assert engine.padded_images == sum(ran) - sum(range(1, MAX_BATCH + 1))


def test_it_is_used_in_another_thread_than_it_was_made_in(engine: Engine) -> None:
    inputs = fill(engine, 3)
    outputs: list[tuple[Array, ...]] = []
    thread = threading.Thread(target=lambda: outputs.append(engine.run(inputs)))
    thread.start()
    thread.join()
    check_outputs(engine, outputs[0], 3)
    if engine.any_thread:
        assert all(np.array_equal(a, b) for a, b in zip(outputs[0], engine.run(inputs), strict=True))


def test_close_releases_threads_and_memory(load: Load, write_model: Callable[..., Path]) -> None:
    load(write_model(), MAX_BATCH).close()  # what a framework keeps for its next network is there now
    threads = threading.active_count()
    engine = load(write_model(), MAX_BATCH)
    engine.run(fill(engine, 2))
    engine.run(engine.slots(3))
    buffers = [weakref.ref(buffer) for buffer in engine.input_buffers]
    engine.close()
    gc.collect()
    assert threading.active_count() <= threads
    if not engine.simulated:  # its buffers are few and go with it
        assert [buffer() for buffer in buffers] == [None] * len(buffers)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x0a\xff\xff"])
def test_what_is_no_network_is_refused(load: Load, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=str(path)):
        load(path, MAX_BATCH)


def test_a_file_that_is_not_there_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent\.onnx"):
        load(tmp_path / "absent.onnx", MAX_BATCH)


def test_a_dimension_that_is_free_beside_the_batch_is_refused(
    load: Load, write_identity: Callable[..., Path]
) -> None:
    with pytest.raises(EngineError, match="height"):
        load(write_identity(("x", TensorProto.FLOAT, ("n", 3, "height", 8))), MAX_BATCH)
