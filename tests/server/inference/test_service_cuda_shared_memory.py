"""CUDA shared memory over a real socket: TensorRT on a simulated GPU, whose clients share memory on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import grpc
import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeMemory, FakeRuntimeModule
from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from server.engines.engine import Array, Engine
from server.engines.padding import padded
from server.engines.tensorrt.loading import load_tensorrt_engine
from server.engines.tensorrt.toolkit import TENSORRT_RTX, load_toolkit
from server.models.repository import ModelEntry
from server.wire.cuda_shared_memory import CudaSharedMemory

Status = grpc.StatusCode
A = np.arange(8, dtype=np.float32).reshape(2, 4)
B = np.full((2, 4), 0.5, np.float32)


@dataclass
class Rig:
    """A server of `pair` on a simulated GPU."""

    served: object
    cuda: FakeCuda
    memory: CudaSharedMemory

    @property
    def stub(self) -> object:
        return self.served.stub

    async def share(self, name: str, size: int = 4096) -> FakeMemory:
        """Reserve memory as a client does, and register it."""
        handle, memory = self.cuda.export(size)
        await self.stub.CudaSharedMemoryRegister(register(name, handle, size))
        return memory


def register(
    name: str, handle: bytes, byte_size: int, device_id: int = 0
) -> pb.CudaSharedMemoryRegisterRequest:
    return pb.CudaSharedMemoryRegisterRequest(
        name=name, raw_handle=handle, device_id=device_id, byte_size=byte_size
    )


@pytest.fixture
async def rig(tiny: ModuleType, root: Path) -> AsyncIterator[Rig]:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")
    cuda, toolkit = FakeCuda(), load_toolkit(TENSORRT_RTX)

    def make_engine(entry: ModelEntry) -> Engine:
        module = FakeRuntimeModule(toolkit.trt, cuda, entry.onnx_path, (1, 2, 8))
        engine = load_tensorrt_engine(
            entry.onnx_path,
            toolkit=TENSORRT_RTX,
            served_batches=(1, 2, 8),
            open_device=lambda _: cuda,
            find_toolkit=lambda _: replace(toolkit, trt=module),
        )
        return padded(engine)

    memory = CudaSharedMemory(lambda: cuda)
    async with tiny.start_server(
        root, models=("pair",), cuda_memory=memory, make_engine=make_engine, batch_limit=8
    ) as served:
        yield Rig(served, cuda, memory)
    assert not cuda.memory


def in_region(tensor: Message, name: str, byte_size: int, offset: int = 0) -> None:
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_byte_size"].int64_param = byte_size
    tensor.parameters["shared_memory_offset"].int64_param = offset


def request(images: int = 2, a: tuple[str, int] = ("io", 0), b: tuple[str, int] = ("io", 512)) -> Message:
    """Both inputs in shared memory, at these offsets; the outputs in the answer."""
    wanted = pb.ModelInferRequest(model_name="pair")
    for name, (region, offset) in (("a", a), ("b", b)):
        in_region(
            wanted.inputs.add(name=name, datatype="FP32", shape=(images, 4)), region, 16 * images, offset
        )
    return wanted


def put(memory: FakeMemory, offset: int, values: Array) -> None:
    memory.bytes[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)


def got(memory: FakeMemory, offset: int, images: int = 2) -> Array:
    return memory.bytes[offset : offset + 16 * images].view(np.float32).reshape(images, 4)


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_inputs_and_outputs(rig: Rig) -> None:
    memory = await rig.share("io")
    put(memory, 0, A)
    put(memory, 512, B)
    wanted = request()
    in_region(wanted.outputs.add(name="sum"), "io", 32, 1024)
    wanted.outputs.add(name="difference")
    response = await rig.stub.ModelInfer(wanted)
    np.testing.assert_array_equal(got(memory, 1024), A + B)
    assert response.raw_output_contents[0] == b""
    assert response.outputs[0].parameters["shared_memory_region"].string_param == "io"
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[1], "f4").reshape(2, 4), A - B)


async def test_one_input_in_the_message_and_one_on_the_gpu(rig: Rig) -> None:
    memory = await rig.share("io")
    put(memory, 0, A)
    wanted = pb.ModelInferRequest(model_name="pair", raw_input_contents=[B.tobytes()])
    in_region(wanted.inputs.add(name="a", datatype="FP32", shape=(2, 4)), "io", 32)
    wanted.inputs.add(name="b", datatype="FP32", shape=(2, 4))
    response = await rig.stub.ModelInfer(wanted)
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], "f4").reshape(2, 4), A + B)


async def test_many_clients_with_and_without_shared_memory_at_once(rig: Rig, tiny: ModuleType) -> None:
    """Batches of all sizes and mixtures, padded where need be: everybody gets their own answer."""
    memory, dice = await rig.share("io", 1 << 16), np.random.default_rng(1)

    async def shared(number: int, images: int) -> None:
        offset = 1024 * number
        a, b = (dice.normal(size=(images, 4)).astype("f4") for _ in range(2))
        put(memory, offset, a)
        put(memory, offset + 256, b)
        wanted = request(images, ("io", offset), ("io", offset + 256))
        in_region(wanted.outputs.add(name="difference"), "io", 16 * images, offset + 512)
        await rig.stub.ModelInfer(wanted)
        np.testing.assert_array_equal(got(memory, offset + 512, images), a - b)

    async def plain(images: int) -> None:
        a, b = (dice.normal(size=(images, 4)).astype("f4") for _ in range(2))
        response = await rig.stub.ModelInfer(tiny.infer_request("pair", a=a, b=b))
        answer = np.frombuffer(response.raw_output_contents[0], "f4").reshape(images, 4)
        np.testing.assert_array_equal(answer, a + b)

    calls = [shared(number, 1 + number % 4) for number in range(40)] + [plain(1 + n % 3) for n in range(40)]
    dice.shuffle(calls)
    await asyncio.gather(*calls)


async def test_a_request_larger_than_the_batch_limit_is_split(rig: Rig) -> None:
    rig.served.models.get("pair").scheduler.batch_limit = 2
    memory, values = await rig.share("io"), np.arange(20, dtype="f4").reshape(5, 4)
    put(memory, 0, values)
    put(memory, 512, values)
    wanted = request(5)
    in_region(wanted.outputs.add(name="sum"), "io", 80, 1024)
    await rig.stub.ModelInfer(wanted)
    np.testing.assert_array_equal(got(memory, 1024, 5), 2 * values)


async def test_status_and_unregister(rig: Rig) -> None:
    await rig.share("one", 100)
    await rig.share("two", 200)
    status = await rig.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())
    found = status.regions["two"]
    assert (found.name, found.device_id, found.byte_size) == ("two", 0, 200)
    assert set(status.regions) == {"one", "two"}
    await rig.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="one"))
    await rig.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="one"))
    status = await rig.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name="two"))
    assert set(status.regions) == {"two"}
    await rig.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
    error = await refused(rig.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name="two")))
    assert error.code() is Status.NOT_FOUND
    assert not rig.cuda.mapped


async def test_unregistering_waits_for_the_requests_that_use_a_region(
    rig: Rig, until_queued: Callable[[Rig], object]
) -> None:
    memory = await rig.share("io")
    put(memory, 0, A)
    put(memory, 512, B)
    scheduler = rig.served.models.get("pair").scheduler
    scheduler.max_delay_s = 3600.0  # the request waits for others
    wanted = request()
    in_region(wanted.outputs.add(name="sum"), "io", 32, 1024)
    infer = asyncio.ensure_future(rig.stub.ModelInfer(wanted))
    await until_queued(rig)
    leaving = asyncio.ensure_future(
        rig.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="io"))
    )
    error = await refused_in_time(rig, request())
    assert error.code() is Status.NOT_FOUND  # nobody new may use it
    assert not leaving.done()
    assert rig.cuda.mapped
    scheduler.max_delay_s = 0.0
    await infer
    await leaving
    np.testing.assert_array_equal(got(memory, 1024), A + B)
    assert not rig.cuda.mapped


async def refused_in_time(rig: Rig, wanted: Message) -> grpc.aio.AioRpcError:
    """Ask until the region is gone; the two calls travel on streams of their own."""
    async with asyncio.timeout(30):
        while True:
            try:
                await rig.stub.ModelInfer(wanted, timeout=0.05)
            except grpc.aio.AioRpcError as error:
                if error.code() is not Status.DEADLINE_EXCEEDED:
                    return error


@pytest.fixture
def until_queued(tiny: ModuleType) -> Callable[[Rig], object]:
    return lambda rig: tiny.until(lambda: rig.served.models.get("pair").scheduler.queued_requests > 0)


@pytest.mark.parametrize(
    ("handle_bytes", "byte_size", "device_id", "code", "words"),
    [
        (0, 10, 0, Status.INVALID_ARGUMENT, "raw handle of 64 bytes"),
        (63, 10, 0, Status.INVALID_ARGUMENT, "got 63 bytes"),
        (64, 10, 0, Status.INVALID_ARGUMENT, "cuIpcOpenMemHandle failed"),
        (64, 10, 7, Status.INVALID_ARGUMENT, "device 7, which does not exist"),
        (64, 0, 0, Status.INVALID_ARGUMENT, "positive byte_size"),
    ],
)
async def test_what_cannot_be_registered(
    rig: Rig, handle_bytes: int, byte_size: int, device_id: int, code: Status, words: str
) -> None:
    call = rig.stub.CudaSharedMemoryRegister(register("io", bytes(handle_bytes), byte_size, device_id))
    error = await refused(call)
    assert error.code() is code
    assert words in error.details()
    memory = await rig.share("io")
    put(memory, 0, A)
    put(memory, 512, B)
    assert (await rig.stub.ModelInfer(request())).raw_output_contents


async def test_a_size_over_the_memory_s(rig: Rig) -> None:
    handle, _ = rig.cuda.export(100)
    error = await refused(rig.stub.CudaSharedMemoryRegister(register("io", handle, 101)))
    assert error.code() is Status.INVALID_ARGUMENT
    assert "the memory has 100 bytes" in error.details()
    assert not rig.cuda.mapped


async def test_both_kinds_share_their_names(rig: Rig, region: tuple[str, object]) -> None:
    key, _ = region
    system = pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=64)
    handle, _ = rig.cuda.export(64)
    await rig.share("io", 64)
    error = await refused(rig.stub.SystemSharedMemoryRegister(system))
    assert error.code() is Status.ALREADY_EXISTS
    await rig.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="io"))
    await rig.stub.SystemSharedMemoryRegister(system)
    error = await refused(rig.stub.CudaSharedMemoryRegister(register("io", handle, 64)))
    assert error.code() is Status.ALREADY_EXISTS


@pytest.mark.parametrize(("size", "offset"), [(32, 4080), (32, 2**63 - 1), (2**63 - 1, 32), (31, 0), (33, 0)])
async def test_slices_out_of_range_or_of_the_wrong_size(rig: Rig, size: int, offset: int) -> None:
    await rig.share("io")
    wanted = request()
    in_region(wanted.inputs[0], "io", size, offset)
    error = await refused(rig.stub.ModelInfer(wanted))
    assert error.code() is Status.INVALID_ARGUMENT
    wanted = request()
    in_region(wanted.outputs.add(name="sum"), "io", size, offset)
    if size != 33:
        error = await refused(rig.stub.ModelInfer(wanted))
        assert error.code() is Status.INVALID_ARGUMENT


async def test_unknown_regions(rig: Rig) -> None:
    error = await refused(rig.stub.ModelInfer(request(a=("absent", 0))))
    assert error.code() is Status.NOT_FOUND


async def test_classes_have_no_place_on_the_gpu(rig: Rig) -> None:
    await rig.share("io")
    wanted = request()
    in_region(wanted.outputs.add(name="sum"), "io", 64, 1024)
    wanted.outputs[0].parameters["classification"].int64_param = 1
    error = await refused(rig.stub.ModelInfer(wanted))
    assert error.code() is Status.INVALID_ARGUMENT
    assert "classes cannot be put into CUDA shared memory" in error.details()


async def test_it_is_listed_where_it_works(rig: Rig) -> None:
    metadata = await rig.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert {"cuda_shared_memory", "system_shared_memory"} <= set(metadata.extensions)


async def test_an_engine_on_the_cpu_takes_none(tiny: ModuleType, root: Path) -> None:
    cuda = FakeCuda()
    memory = CudaSharedMemory(lambda: cuda)
    async with tiny.start_server(root, models=("pair", "colour"), cuda_memory=memory) as served:
        rig = Rig(served, cuda, memory)
        await rig.share("io")
        given = request()
        into = tiny.infer_request("pair", a=A, b=B)
        in_region(into.outputs.add(name="sum"), "io", 32)
        for wanted in (given, into):
            error = await refused(served.stub.ModelInfer(wanted))
            assert error.code() is Status.UNIMPLEMENTED
            assert "onnxruntime_onnx, which takes no CUDA shared memory" in error.details()
        encoded = pb.ModelInferRequest(model_name="colour")
        in_region(encoded.inputs.add(name="image", datatype="BYTES", shape=(1,)), "io", 64)
        error = await refused(served.stub.ModelInfer(encoded))
        assert error.code() is Status.INVALID_ARGUMENT
        assert "encoded images cannot be decoded" in error.details()


async def test_not_enabled(tiny: ModuleType, root: Path) -> None:
    async with tiny.start_server(root, models=("pair",)) as served:
        metadata = await served.stub.ServerMetadata(pb.ServerMetadataRequest())
        assert "cuda_shared_memory" not in metadata.extensions
        calls = [
            served.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest()),
            served.stub.CudaSharedMemoryRegister(register("io", bytes(64), 10)),
            served.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="io")),
        ]
        for call in calls:
            error = await refused(call)
            assert error.code() is Status.UNIMPLEMENTED
            assert "--cuda-shared-memory" in error.details()
        await served.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
