"""Through a real front end: large requests, whose pixels go through shared memory, and processes that die."""

from __future__ import annotations

import asyncio
import io
import mmap
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from PIL import Image

from bench.serving.processes import family
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.front_ends import child
from server.front_ends import front_ends as keeping
from server.front_ends.child import MODULE
from server.front_ends.core import REFER_BYTES
from server.front_ends.desk import Desk
from server.front_ends.frames import Kind

if TYPE_CHECKING:
    from tiny_server import Served

WIDTH = REFER_BYTES // 4  # a row is too large for the socket
A = np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)
B = np.full((3, WIDTH), 10, np.float32)


@pytest.fixture
def root(tiny: ModuleType, tmp_path: Path) -> Path:
    """`colour` as ever, `pair` and `gate` with wide rows."""
    root = tiny.make_repository(tmp_path / "repository")
    for name in ("pair", "gate"):
        tiny.put_model(root, name, 1, tiny.pair_model(WIDTH), config="max_batch_size = 8\n")
    return root


@pytest.fixture
def front_ends() -> int:
    return 1


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kinds of frames that the core gets."""
    seen: list[int] = []
    receive = Desk.receive
    monkeypatch.setattr(
        Desk, "receive", lambda desk, frames: (seen.extend(f.kind for f in frames), receive(desk, frames))
    )
    return seen


def children() -> list[int]:
    others = set(family(os.getpid())) - {os.getpid()}
    return [pid for pid in others if MODULE in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]


def pair(tiny: ModuleType, request_id: str = "") -> pb.ModelInferRequest:
    return tiny.infer_request("pair", request_id=request_id, a=A, b=B)


def gate(tiny: ModuleType) -> pb.ModelInferRequest:
    """Waits for the gate."""
    return tiny.infer_request("gate", a=A, b=B)


def outputs(response: pb.ModelInferResponse) -> list[np.ndarray]:
    return [np.frombuffer(raw, np.float32).reshape(-1, WIDTH) for raw in response.raw_output_contents]


async def test_large_requests(served: Served, tiny: ModuleType, kinds: list[int]) -> None:
    response = await served.stub.ModelInfer(pair(tiny, "an id"))
    assert response.id == "an id"
    np.testing.assert_array_equal(outputs(response), [A + B, A - B])
    assert kinds == [Kind.REFERRED]


async def test_large_requests_in_streams_keep_their_order(served: Served, tiny: ModuleType) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(20):
            yield tiny.infer_request("pair", request_id=str(number), a=A + number, b=B)
        yield pb.ModelInferRequest(model_name="nothing", id="bad", raw_input_contents=[bytes(REFER_BYTES)])

    *answers, refused = [answer async for answer in served.stub.ModelStreamInfer(requests())]
    for number, answer in enumerate(answers):
        assert answer.infer_response.id == str(number)
        np.testing.assert_array_equal(outputs(answer.infer_response)[0], A + number + B)
    assert (refused.infer_response.id, len(answers)) == ("bad", 20)
    assert "raw" in refused.error_message


async def test_a_large_request_of_the_wrong_size(served: Served, tiny: ModuleType) -> None:
    request = pair(tiny)
    request.raw_input_contents[0] += b"\0"
    with pytest.raises(grpc.aio.AioRpcError, match=f"got {A.nbytes + 1} bytes") as caught:
        await served.stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_message_that_is_none(served: Served) -> None:
    call = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError, match="are not a valid inference"):
        await call(b"\xff" * (3 * REFER_BYTES))


async def test_a_photograph_is_decoded(served: Served, tiny: ModuleType, kinds: list[int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (128, 128, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "PNG")
    request = pb.ModelInferRequest(model_name="colour")
    request.inputs.add(name="image", datatype="BYTES", shape=(1,))
    request.raw_input_contents.append(tiny.bytes_tensor(encoded.getvalue()))
    response = await served.stub.ModelInfer(request)
    assert np.frombuffer(response.raw_output_contents[0], np.float32) == pytest.approx(127, abs=15)
    assert kinds == [Kind.REFERRED]


async def test_a_cancelled_request_leaves_the_queue(served: Served, tiny: ModuleType) -> None:
    scheduler = served.models.get("gate").scheduler
    async with occupied(served, tiny) as running:
        waiting = served.stub.ModelInfer(gate(tiny))
        await tiny.until(lambda: scheduler.queued_images == len(A))
        waiting.cancel()
        await tiny.until(lambda: scheduler.statistics.cancel_count == 1)
        assert scheduler.queued_images == 0
        served.gate.open.set()
        np.testing.assert_array_equal(outputs(await running)[0], A + B)


async def test_pixels_of_a_cancelled_request_stay_until_the_engine_has_read_them(
    served: Served, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics, read = served.models.get("gate").scheduler.statistics, []
    run = tiny.GateEngine.run

    def read_late(engine: object, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        outputs = run(engine, inputs)  # the gate is open now
        read.append([array.copy() for array in inputs])
        return outputs

    monkeypatch.setattr(tiny.GateEngine, "run", read_late)
    async with occupied(served, tiny) as running:
        running.cancel()
        await tiny.until(lambda: statistics.cancel_count == 1)
        for _ in range(8):
            await served.stub.ModelInfer(tiny.infer_request("pair", a=-A, b=-B))
        served.gate.open.set()
        await tiny.until(lambda: read)
    np.testing.assert_array_equal(read, [[A, B]])


async def test_a_deadline_reaches_the_queue(served: Served, tiny: ModuleType) -> None:
    statistics = served.models.get("gate").scheduler.statistics
    async with occupied(served, tiny) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.ModelInfer(gate(tiny), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await tiny.until(lambda: statistics.expired_count + statistics.cancel_count == 1)
        served.gate.open.set()
        await running


@asynccontextmanager
async def occupied(served: Served, tiny: ModuleType) -> AsyncIterator[grpc.aio.UnaryUnaryCall]:
    """The model `gate` runs a batch, the call that it yields, until its gate opens."""
    running = served.stub.ModelInfer(gate(tiny))
    await tiny.until(lambda: any(engine.running.is_set() for engine in served.gate.engines))
    yield running


async def test_a_front_end_that_dies_takes_its_own_requests_along_and_is_replaced(
    served: Served, tiny: ModuleType
) -> None:
    scheduler = served.models.get("gate").scheduler
    async with occupied(served, tiny) as running:
        waiting = served.stub.ModelInfer(gate(tiny))
        await tiny.until(lambda: scheduler.queued_images == len(A))
        (process,) = children()
        os.kill(process, signal.SIGKILL)
        for call in (running, waiting):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await tiny.until(lambda: scheduler.queued_images == 0)
        await tiny.until(lambda: served.server.restarts == served.server.running == 1)
        assert children() != [process]
        served.gate.open.set()
    response = await served.stub.ModelInfer(pair(tiny), wait_for_ready=True)
    np.testing.assert_array_equal(outputs(response), [A + B, A - B])


async def test_nothing_of_a_front_end_that_dies_under_load_stays(served: Served, tiny: ModuleType) -> None:
    scheduler = served.models.get("gate").scheduler

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        yield gate(tiny)
        yield gate(tiny)

    async def stream() -> None:
        async for _ in served.stub.ModelStreamInfer(requests()):
            pytest.fail("nothing is answered while the gate is closed")

    async with occupied(served, tiny) as running:
        calls = [served.stub.ModelInfer(gate(tiny)) for _ in range(24)]
        streams = [stream() for _ in range(8)]
        ending = asyncio.gather(running, *calls, *streams, return_exceptions=True)
        await tiny.until(lambda: scheduler.queued_requests >= 24 + 2 * 8 - 2)  # those the engine has
        os.kill(children()[0], signal.SIGKILL)
        codes = {error.code() for error in await ending}
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        await tiny.until(lambda: scheduler.queued_requests == 0)
        await tiny.until(lambda: served.server.restarts == served.server.running == 1)
        served.gate.open.set()
    await served.stub.ModelInfer(gate(tiny), wait_for_ready=True)
    assert scheduler.statistics.success.count == 1
    await tiny.until(lambda: arenas() == 1)


async def test_one_that_hangs_is_killed_and_replaced(
    served: Served, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "SAID_TIMEOUT_S", 0.2)
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(keeping, "HUNG_AFTER_S", 0.5)
    [hung] = children()
    os.kill(hung, signal.SIGSTOP)
    call = served.stub.ModelInfer(pair(tiny))
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await asyncio.wait_for(call, 60)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
    await tiny.until(lambda: served.server.restarts == served.server.running == 1)
    assert outputs(await served.stub.ModelInfer(pair(tiny), wait_for_ready=True))
    assert hung not in children()


async def test_one_that_answers_is_left_in_peace(
    served: Served, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 0.01)
    before = children()
    await asyncio.sleep(1)
    await served.stub.ModelInfer(pair(tiny))
    assert (children(), served.server.restarts) == (before, 0)


def arenas() -> int:
    """How many arenas this process maps."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("boulton-arena")


async def test_models_come_and_go_under_load(tiny: ModuleType, root: Path) -> None:
    going = True

    async def load(stub: pb_grpc.GRPCInferenceServiceStub, number: int) -> None:
        while going:
            number += 1
            try:
                response = await stub.ModelInfer(tiny.infer_request("pair", a=A + number, b=B))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017  # between unload and load
            else:
                np.testing.assert_array_equal(outputs(response)[0], A + number + B)

    async with tiny.start_server(root, front_ends=2) as served, connections(served, 4) as stubs:
        loads = [asyncio.create_task(load(stubs[n % 4], 1000 * n)) for n in range(8)]
        for turn in range(6):
            await stubs[turn % 4].RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="pair"))
            await stubs[turn % 3].RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair"))
        going = False
        await asyncio.gather(*loads)
        await stubs[0].ModelInfer(pair(tiny))


async def test_what_is_registered_through_one_front_end_holds_for_all(
    tiny: ModuleType, root: Path, region: tuple[str, mmap.mmap]
) -> None:
    key, memory = region
    values = np.arange(8, dtype=np.float32)
    memory[: values.nbytes] = values.tobytes()
    request = pb.ModelInferRequest(model_name="gate0")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=(4, 2))
    tensor.parameters["shared_memory_region"].string_param = "mine"
    tensor.parameters["shared_memory_byte_size"].int64_param = values.nbytes
    tiny.put_model(root, "gate0", 1, tiny.typed_model(1), config="max_batch_size = 4\n")
    async with (
        tiny.start_server(root, models=("gate0",), front_ends=2) as served,
        connections(served, 8) as stubs,
    ):
        served.gate.open.set()
        register = pb.SystemSharedMemoryRegisterRequest(name="mine", key=key, byte_size=values.nbytes)
        await stubs[0].SystemSharedMemoryRegister(register)
        for stub in stubs:
            assert (await stub.ModelInfer(request)).raw_output_contents[0] == values.tobytes()
        await stubs[-1].SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="mine"))
        for stub in stubs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@asynccontextmanager
async def connections(
    served: Served, count: int
) -> AsyncIterator[Sequence[pb_grpc.GRPCInferenceServiceStub]]:
    """Clients with a connection each, which the kernel spreads over the front ends."""
    async with AsyncExitStack() as stack:
        alone = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(served.address, options=alone) for _ in range(count)]
        yield [
            pb_grpc.GRPCInferenceServiceStub(await stack.enter_async_context(channel)) for channel in channels
        ]


async def test_a_process_that_cannot_be_started_leaves_nothing_open(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("server.front_ends.child._spawn", refused)
    before = descriptors()
    with pytest.raises(BlockingIOError):
        await served.server._start_one()
    assert descriptors() == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_front_ends_end_with_their_daemon(tiny: ModuleType, root: Path) -> None:
    async with tiny.start_server(root, front_ends=2) as served:
        assert len(children()) == 2
        assert (served.server.running, served.server.restarts) == (2, 0)
    assert children() == []
