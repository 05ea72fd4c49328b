"""The engine on a simulated GPU (tests/services/fake_gpu.py): plans are real, running them is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from answering import answered
from fake_gpu import FakeContext, FakeCuda, FakeRuntimeModule, FakeUnpacked

from server.engines.device_rows import DeviceRows, Exchange, Placed, exchanging, run_exchanging
from server.engines.engine import Array
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import padded
from server.engines.tensorrt.engine import TensorRtEngine
from server.engines.tensorrt.loading import load_tensorrt_engine
from server.engines.tensorrt.plans import IfMissing
from server.engines.tensorrt.toolkit import TENSORRT_RTX, Toolkit
from server.errors import CudaLost, EngineError
from server.scheduling.scheduler import Scheduler, SchedulerSettings

BATCHES = (1, 4, 6)
CALLS = ("memcpy_htod", "event_record", "stream_wait_event", "graph_launch", "memcpy_dtoh")


@dataclass
class Rig:
    """A network, a GPU that is not there, and what was made of them."""

    path: Path
    cuda: FakeCuda
    module: FakeRuntimeModule
    toolkit: Toolkit

    def load(self, **settings: object) -> TensorRtEngine:
        wanted = {"served_batches": self.module._batches, **settings}
        return load_tensorrt_engine(
            self.path,
            toolkit=TENSORRT_RTX,
            open_device=lambda _: self.cuda,
            find_toolkit=lambda _: self.toolkit,
            **wanted,
        )

    @property
    def unpacked(self) -> FakeUnpacked:
        return self.module.unpacked[-1]

    def calls(self, engine: TensorRtEngine) -> list[str]:
        """What was queued since the last look, by name, u for the upload stream."""
        uploads = min(self.cuda.streams)
        seen = [f"{what}{' u' if handle == uploads else ''}" for what, handle in self.cuda.calls]
        self.cuda.calls.clear()
        return seen


@pytest.fixture
def make_rig(rtx: Toolkit, write_model: Callable[..., Path]) -> Callable[..., Rig]:
    def make(batches: tuple[int, ...] = BATCHES, **model: object) -> Rig:
        path, cuda = write_model(**model), FakeCuda()
        module = FakeRuntimeModule(rtx.trt, cuda, path, batches)
        return Rig(path, cuda, module, replace(rtx, trt=module))

    return make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


@pytest.fixture
def engine(rig: Rig) -> Iterator[TensorRtEngine]:
    engine = rig.load()
    rig.cuda.calls.clear()
    yield engine
    engine.close()


def fill(engine: TensorRtEngine, images: int, seed: int = 0) -> tuple[Array, ...]:
    dice = np.random.default_rng(seed)
    for buffer in engine.input_buffers:
        buffer[:images] = dice.integers(0, 255, (images, *buffer.shape[1:]))
    return tuple(buffer[:images] for buffer in engine.input_buffers)


def expected(path: Path, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return load_onnxruntime_engine(path, max_batch=64).run(tuple(array.copy() for array in inputs))


def check(outputs: tuple[Array, ...], wanted: tuple[Array, ...]) -> None:
    assert len(outputs) == len(wanted)
    for output, right in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(output, right, rtol=1e-5)
        assert output.dtype == right.dtype


def test_it_answers_as_the_graph_does_at_every_served_size(rig: Rig, engine: TensorRtEngine) -> None:
    assert engine.served_batches == BATCHES
    assert engine.max_batch == 6
    for round_, images in enumerate(BATCHES * 3):
        inputs = fill(engine, images, round_)
        wanted = expected(rig.path, inputs)
        check(engine.run(inputs), wanted)


def test_a_batch_uploads_computes_and_downloads_in_order(rig: Rig, engine: TensorRtEngine) -> None:
    engine.run(fill(engine, 4))
    assert rig.calls(engine) == ["upload u", "record u", "wait", "launch", "download", "download", "record"]


def test_loading_runs_every_size_in_every_lane_and_captures_it(rig: Rig) -> None:
    engine = rig.load()
    assert [what for what, _ in rig.cuda.calls] == ["execute", "capture"] * (2 * len(BATCHES))
    assert len(rig.cuda.graphs) == 2 * len(BATCHES)
    engine.close()
    assert all(graph.closed for graph in rig.cuda.graphs)
    assert not rig.cuda.memory


def test_the_next_batch_is_uploaded_while_one_is_under_way(rig: Rig, engine: TensorRtEngine) -> None:
    first = fill(engine, 4, seed=1)
    wanted_first = expected(rig.path, first)
    engine.begin(first)
    second = fill(engine, 6, seed=2)
    assert not np.shares_memory(first[0], second[0])
    wanted_second = expected(rig.path, second)
    engine.begin(second)
    assert rig.calls(engine).count("upload u") == 2  # both are queued before anything is waited for
    with pytest.raises(EngineError, match="finish a batch first"):
        _ = engine.input_buffers
    check(engine.finish(), wanted_first)
    third = fill(engine, 4, seed=3)
    wanted_third = expected(rig.path, third)
    engine.begin(third)
    check(engine.finish(), wanted_second)
    check(engine.finish(), wanted_third)
    with pytest.raises(EngineError, match="no batch is under way"):
        engine.finish()


def test_many_overlapping_batches_keep_their_answers(rig: Rig, engine: TensorRtEngine) -> None:
    wanted: list[tuple[Array, ...]] = []
    for number in range(30):
        inputs = fill(engine, BATCHES[number % 3], number)
        wanted.append(expected(rig.path, inputs))
        engine.begin(inputs)
        if number:
            check(engine.finish(), wanted[number - 1])
    check(engine.finish(), wanted[-1])


def test_run_and_begin_are_not_mixed(engine: TensorRtEngine) -> None:
    engine.begin(fill(engine, 1))
    with pytest.raises(EngineError, match="under way: finish it first"):
        engine.run(fill(engine, 1))
    engine.finish()


def test_rows_from_elsewhere_are_copied(rig: Rig, engine: TensorRtEngine) -> None:
    foreign = np.random.default_rng(0).integers(0, 255, (4, 6, 6, 3), dtype=np.uint8)
    check(engine.run((foreign,)), expected(rig.path, (foreign,)))


def test_sizes_that_were_not_built_are_refused_and_padding_fills_them(
    rig: Rig, engine: TensorRtEngine
) -> None:
    with pytest.raises(EngineError, match="built for batches of 1, 4, 6, got 3"):
        engine.run(fill(engine, 3))
    filled = padded(engine)
    inputs = fill(engine, 3)
    wanted = expected(rig.path, inputs)
    check(filled.run(inputs), wanted)
    assert filled.padded_images == 1


def test_new_addresses_are_captured_anew_and_old_graphs_stay_right(rig: Rig, engine: TensorRtEngine) -> None:
    """As when buffers change: the graph of the old addresses must not run for the new ones."""
    lane = engine._free[0]
    run = engine._runs[1]
    with rig.cuda.bound():
        moved = rig.cuda.device_memory(4 * 108)
    changed = replace(lane, device_inputs=(moved,), addresses={**lane.addresses, "image": moved.address})
    engine._free[0] = changed
    graphs = run.graphs
    for _ in range(2):
        inputs = fill(engine, 4, seed=5)
        check(engine.run(inputs), expected(rig.path, inputs))
    assert run.graphs == graphs + 1
    engine._free[0] = lane
    inputs = fill(engine, 4, seed=6)
    check(engine.run(inputs), expected(rig.path, inputs))
    assert run.graphs == graphs + 1


def test_without_graphs_it_runs_all_the_same(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.cuda.capture_fails = "operation not permitted when stream is capturing"
    engine = rig.load()
    for seed, images in enumerate((4, 1, 4)):
        inputs = fill(engine, images, seed)
        check(engine.run(inputs), expected(rig.path, inputs))
    assert not rig.cuda.graphs
    assert caplog.text.count("runs without CUDA graphs: operation not permitted") == len(BATCHES)
    engine.close()


@pytest.mark.parametrize(
    "call", ["memcpy_htod", "event_record", "stream_wait_event", "graph_launch", "memcpy_dtoh"]
)
def test_after_an_error_that_passes_the_next_batch_is_right(
    rig: Rig, engine: TensorRtEngine, call: str
) -> None:
    rig.cuda.failures.append(call)
    with pytest.raises(EngineError, match=rf"CUDA failed on Simulated A100: {call} failed") as caught:
        engine.run(fill(engine, 4))
    assert not isinstance(caught.value, CudaLost)
    inputs = fill(engine, 4, seed=9)
    check(engine.run(inputs), expected(rig.path, inputs))
    assert rig.cuda.depth == 0


def test_an_error_that_stays_is_the_end_of_the_process(rig: Rig, engine: TensorRtEngine) -> None:
    rig.cuda.broken = True
    inputs = fill(engine, 4)
    with pytest.raises(CudaLost, match=r"illegal memory access.*the process must be restarted"):
        engine.run(inputs)
    with pytest.raises(CudaLost):
        engine.run(inputs)
    engine.close()  # gives up what cannot be given back, without an error


def test_an_error_of_queued_work_shows_when_it_is_waited_for(rig: Rig, engine: TensorRtEngine) -> None:
    engine.begin(fill(engine, 4))
    rig.cuda.memory.clear()  # what the kernels read is gone
    with pytest.raises(CudaLost, match="illegal memory access"):
        engine.finish()


def test_tensorrt_refusing_to_run_is_no_lost_gpu(rig: Rig) -> None:
    rig.cuda.capture_fails = "none"
    engine = rig.load()
    for context in rig.unpacked.contexts:
        context.refuses = "yes"
    with pytest.raises(EngineError, match="TensorRT failed") as caught:
        engine.run(fill(engine, 1))
    assert not isinstance(caught.value, CudaLost)
    engine.close()


def test_too_little_memory_says_what_to_do_and_frees_all(rig: Rig) -> None:
    rig.cuda.failures.append("mem_alloc")
    with pytest.raises(EngineError, match=r"out of memory.*lower --max-batch"):
        rig.load()
    assert not rig.cuda.memory


def test_a_network_without_a_batch_dimension(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig((), batch=2)
    engine = rig.load()
    assert (engine.max_batch, engine.served_batches) == (0, ())
    (buffer,) = engine.input_buffers
    buffer[...] = np.random.default_rng(1).integers(0, 255, buffer.shape)
    wanted = load_onnxruntime_engine(rig.path).run((buffer.copy(),))
    check(engine.run(engine.input_buffers), wanted)
    engine.close()


def test_the_plan_is_kept_with_the_kernels_and_found_again(rig: Rig, tmp_path: Path) -> None:
    rig.load(cache_dir=tmp_path / "kept").close()
    assert len(list((tmp_path / "kept").glob("*.plan"))) == 1
    rig.load(cache_dir=tmp_path / "kept", if_missing=IfMissing.REFUSE).close()
    assert rig.unpacked.configs[0].given == b"k"
    with pytest.raises(EngineError, match="there is no plan cache"):
        rig.load(if_missing=IfMissing.REFUSE)


def test_contexts_reserve_for_their_own_profile_and_compile_before_a_graph_is_made(rig: Rig) -> None:
    engine = rig.load()
    (config,) = rig.unpacked.configs
    strategies = rig.toolkit.trt
    assert rig.unpacked.strategies == [config] * len(BATCHES)
    assert config.allocation == strategies.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    eager = strategies.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager
    engine.close()


def test_a_tensorrt_that_compiles_nothing_is_told_how_to_reserve(rig: Rig) -> None:
    rig.module.without.add("DynamicShapesKernelSpecializationStrategy")
    engine = rig.load()
    on_change = rig.toolkit.trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    assert rig.unpacked.strategies == [on_change] * len(BATCHES)
    assert not rig.unpacked.configs
    inputs = fill(engine, 4)
    check(engine.run(inputs), expected(rig.path, inputs))
    engine.close()


def test_what_tensorrt_calls_not_capturable_is_not_captured(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FakeContext, "is_stream_capturable", lambda _self, stream: stream == 0)
    engine = rig.load()
    assert not rig.cuda.graphs
    assert "without CUDA graphs: TensorRT says that its work cannot be captured" in caplog.text
    inputs = fill(engine, 6)
    check(engine.run(inputs), expected(rig.path, inputs))
    assert "execute" in rig.calls(engine)
    engine.close()


def test_powers_of_two_are_served_by_default(make_rig: Callable[..., Rig]) -> None:
    engine = make_rig((1, 2, 4, 6)).load(served_batches=(), max_batch=6)
    assert engine.served_batches == (1, 2, 4, 6)
    engine.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"served_batches": (4, 1)}, "must ascend"),
        ({"served_batches": (0,)}, "ascend from at least 1|1 to"),
        ({"max_batch": 8}, "end with the largest batch, 8"),
    ],
)
def test_served_sizes_that_make_no_sense_are_refused(
    rig: Rig, settings: dict[str, object], message: str
) -> None:
    if settings.get("max_batch") == 0:
        settings = {"served_batches": (0,)}
    with pytest.raises(EngineError, match=message):
        rig.load(**settings)


def test_a_gpu_that_tensorrt_rtx_lacks_is_named(rig: Rig) -> None:
    rig.cuda.capability = "SM90"
    with pytest.raises(EngineError, match=r"runs on SM75, SM80, .*; Simulated A100 is SM90: use --engine"):
        rig.load()


def test_a_plan_of_other_sizes_is_refused(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig((1, 2))
    with pytest.raises(EngineError, match="the plan was built for 2 batch sizes, 3 are to be served"):
        rig.load(served_batches=(1, 2, 4))
    assert not rig.cuda.memory


def test_a_closed_engine_says_so(engine: TensorRtEngine) -> None:
    inputs = fill(engine, 1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(inputs)


def test_tensorrt_itself_cannot_unpack_without_a_gpu(rtx: Toolkit, rig: Rig) -> None:
    """The real runtime, on a machine without a GPU: a clear error, no crash."""
    pytest.importorskip("tensorrt_rtx_bindings")
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU here")
    rig.toolkit = rtx
    with pytest.raises(EngineError, match=r"TensorRT cannot unpack the plan: .*(CUDA|Cuda|driver)"):
        rig.load()


def test_answers_belong_to_the_caller_and_slots_stay_where_they_are(rig: Rig, engine: TensorRtEngine) -> None:
    inputs = fill(engine, 4, seed=1)
    outputs = engine.run(inputs)
    kept = [output.copy() for output in outputs]
    assert np.shares_memory(inputs[0], engine.input_buffers[0])
    for seed in (2, 3):
        engine.run(fill(engine, 4, seed))
    assert all(np.array_equal(a, b) for a, b in zip(outputs, kept, strict=True))


@pytest.mark.parametrize("count", [3, 4])
def test_slots_of_the_other_lane_are_copied_where_the_batch_belongs(rig: Rig, count: int) -> None:
    filled = padded(rig.load())
    first = filled.slots(count)
    fill(filled, count, seed=1)
    expected = [output.copy() for output in filled.run(first)]
    filled.begin(first)
    assert filled.slots(count) is not first
    filled.begin(first)
    for outputs in (filled.finish(), filled.finish()):
        check(outputs, expected)
    filled.close()


async def test_behind_the_scheduler_every_request_has_its_answer(rig: Rig, engine: TensorRtEngine) -> None:
    """Sizes that are padded, split and gathered; two batches under way; work that is done late."""
    scheduler = Scheduler(padded(engine), SchedulerSettings(batch_limit=6))
    scheduler.start()
    dice = np.random.default_rng(3)
    pictures = [dice.integers(0, 255, (1 + n % 8, 6, 6, 3), dtype=np.uint8) for n in range(60)]
    asked = (answered(scheduler, (pixels,), len(pixels), nbytes=pixels.nbytes) for pixels in pictures)
    answers = await asyncio.gather(*asked)
    for pixels, answer in zip(pictures, answers, strict=True):
        check(answer.outputs, expected(rig.path, (pixels,)))
    scheduler.close()
    await scheduler.wait_closed()
    assert rig.cuda.depth == 0
    assert not rig.cuda.memory


# What lies in clients' memory on the GPU


class Client:
    """Memory on the GPU that a client fills and reads."""

    def __init__(self, cuda: FakeCuda, size: int) -> None:
        handle, self.memory = cuda.export(size)
        with cuda.bound():
            self.mapped = cuda.foreign_memory(handle)

    def put(self, values: np.ndarray, offset: int = 0) -> DeviceRows:
        """Write values there, and return them as a request would name them."""
        self.memory.bytes[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)
        return DeviceRows(self.mapped, offset, values.shape, values.dtype)

    def room(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> DeviceRows:
        return DeviceRows(self.mapped, offset, shape, np.dtype(dtype))

    def got(self, rows: DeviceRows) -> np.ndarray:
        return self.memory.bytes[rows.offset :][: rows.nbytes].view(rows.dtype).reshape(rows.shape)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 6, 6, 3), dtype=np.uint8)


def test_rows_come_from_a_client_s_memory_without_passing_through_the_host(
    rig: Rig, engine: TensorRtEngine
) -> None:
    given = images(4)
    source = Client(rig.cuda, 1000).put(given, offset=100)
    outputs = engine.run((engine.input_buffers[0][:4],), Exchange([Placed(0, 0, source)]))
    check(outputs, expected(rig.path, (given,)))
    assert rig.calls(engine) == ["copy u", "record u", "wait", "launch", "download", "download", "record"]


@pytest.mark.parametrize(("first", "uploads"), [(0, 1), (1, 2), (2, 1)])
def test_rows_of_host_and_gpu_ride_in_one_batch(
    rig: Rig, engine: TensorRtEngine, first: int, uploads: int
) -> None:
    """Two rows of four lie on the GPU: at the beginning, in the middle, at the end."""
    given = images(4)
    inputs = (engine.input_buffers[0][:4],)
    inputs[0][:] = given
    inputs[0][first : first + 2] = 7  # what the slots hold for them must not matter
    source = Client(rig.cuda, 1000).put(given[first : first + 2])
    outputs = engine.run(inputs, Exchange([Placed(0, first, source)]))
    check(outputs, expected(rig.path, (given,)))
    assert rig.calls(engine).count("upload u") == uploads


def test_several_clients_rows_ride_in_one_batch(rig: Rig, engine: TensorRtEngine) -> None:
    given = images(6)
    inputs = (engine.input_buffers[0][:6],)
    inputs[0][:] = given
    one, other = Client(rig.cuda, 300), Client(rig.cuda, 300)
    sources = [Placed(0, 4, one.put(given[4:6])), Placed(0, 1, other.put(given[1:3]))]
    inputs[0][1:3] = inputs[0][4:6] = 0
    check(engine.run(inputs, Exchange(sources)), expected(rig.path, (given,)))


def test_outputs_go_to_a_client_s_memory(rig: Rig, engine: TensorRtEngine) -> None:
    inputs = fill(engine, 4)
    scores, top = expected(rig.path, inputs)
    client = Client(rig.cuda, 200)
    rows, index = client.room((2, 4), "f4", 64), client.room((4,), "i8", 128)
    outputs = engine.run(inputs, Exchange(targets=[Placed(0, 1, rows), Placed(1, 0, index)]))
    np.testing.assert_allclose(client.got(rows), scores[1:3], rtol=1e-5)
    np.testing.assert_array_equal(client.got(index), top)
    np.testing.assert_allclose(outputs[0][[0, 3]], scores[[0, 3]], rtol=1e-5)
    assert rig.calls(engine).count("download") == 2  # the two rows that are not the client's; no index
    assert bytes(client.memory.bytes[:64]) == b"\xa5" * 64  # nothing beside what was named is written


def test_without_a_batch_dimension_whole_tensors_are_exchanged(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig((), batch=2)
    engine = rig.load()
    given = images(2)
    client = Client(rig.cuda, 1000)
    target = client.room((2, 4), "f4", 500)
    outputs = engine.run(
        engine.input_buffers, Exchange([Placed(0, 0, client.put(given))], [Placed(0, 0, target)])
    )
    scores, top = load_onnxruntime_engine(rig.path).run((given,))
    np.testing.assert_allclose(client.got(target), scores, rtol=1e-5)
    np.testing.assert_array_equal(outputs[1], top)
    engine.close()


def test_overlapping_batches_exchange_apart(rig: Rig, engine: TensorRtEngine) -> None:
    client, wanted, targets = Client(rig.cuda, 20_000), [], []
    for number in range(12):
        given = images(4, number)
        targets.append(client.room((4, 4), "f4", 10_000 + 64 * number))
        source = client.put(given, 432 * number)
        wanted.append(expected(rig.path, (given,))[0])
        engine.begin(
            (engine.input_buffers[0][:4],), Exchange([Placed(0, 0, source)], [Placed(0, 0, targets[-1])])
        )
        if number:
            engine.finish()
    engine.finish()
    for target, scores in zip(targets, wanted, strict=True):
        np.testing.assert_allclose(client.got(target), scores, rtol=1e-5)


def test_padding_passes_an_exchange_on(rig: Rig, engine: TensorRtEngine) -> None:
    given, client = images(3), Client(rig.cuda, 1000)
    target = client.room((3, 4), "f4", 400)
    filled = padded(engine)
    assert exchanging(filled) is filled
    exchange = Exchange([Placed(0, 0, client.put(given))], [Placed(0, 0, target)])
    outputs = filled.run((filled.input_buffers[0][:3],), exchange)
    scores, top = expected(rig.path, (given,))
    np.testing.assert_allclose(client.got(target), scores, rtol=1e-5)
    np.testing.assert_array_equal(outputs[1], top)
    filled.begin((filled.input_buffers[0][:3],), exchange)
    np.testing.assert_array_equal(filled.finish()[1], top)


def test_memory_that_is_gone_takes_the_gpu_along(rig: Rig, engine: TensorRtEngine) -> None:
    client = Client(rig.cuda, 1000)
    source = client.put(images(4))
    del rig.cuda.memory[client.memory.address]  # the client freed it
    with pytest.raises(CudaLost):
        engine.run((engine.input_buffers[0][:4],), Exchange([Placed(0, 0, source)]))


def test_an_engine_that_cannot_exchange_says_so(rig: Rig) -> None:
    plain = load_onnxruntime_engine(rig.path, max_batch=4)
    assert exchanging(plain) is None
    source = Client(rig.cuda, 1000).put(images(1))
    with pytest.raises(EngineError, match="onnxruntime_onnx takes no tensors that lie on a GPU"):
        run_exchanging(plain, (plain.input_buffers[0][:1],), Exchange([Placed(0, 0, source)]))
