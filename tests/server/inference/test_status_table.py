"""Every situation of the status table: the code, what the message says, and that the server goes on."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from server.lifecycle import Phase

if TYPE_CHECKING:
    from tiny_server import Served

Status = grpc.StatusCode
Check = Callable[[], Awaitable[None]]
Edit = Callable[[pb.ModelInferRequest], object]
A = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(params=[0, 1], ids=["own process", "front end"])
def front_ends(request: pytest.FixtureRequest) -> int:
    """Whatever is asked, the answer is the same from a front end."""
    return request.param


def pair(tiny: ModuleType) -> pb.ModelInferRequest:
    return tiny.infer_request("pair", a=A, b=A)


async def refused(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def running(served: Served) -> None:
    """Wait until the newest gate engine is inside a batch."""
    assert await asyncio.to_thread(served.gate.engines[-1].running.wait, 10)


def gate_request(tiny: ModuleType, images: int = 1) -> pb.ModelInferRequest:
    return tiny.infer_request("gate", x=np.ones((images, 2), np.float32))


@pytest.fixture
async def healthy(served: Served, tiny: ModuleType) -> Check:
    """Ask that the server still answers others."""

    async def check() -> None:
        response = await served.stub.ModelInfer(pair(tiny))
        assert response.raw_output_contents[0] == (A + A).tobytes()

    await check()
    return check


class TestNotFound:
    async def test_unknown_model(self, served: Served, tiny: ModuleType, healthy: Check) -> None:
        stub = served.stub
        absent = "Request for unknown model: 'absent' is not found"
        calls = [
            stub.ModelInfer(tiny.infer_request("absent", x=A)),
            stub.ModelMetadata(pb.ModelMetadataRequest(name="absent")),
            stub.ModelConfig(pb.ModelConfigRequest(name="absent")),
            stub.ModelStatistics(pb.ModelStatisticsRequest(name="absent")),
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="absent")),
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="absent")),
        ]
        for call in calls:
            error = await refused(call)
            assert error.code() is Status.NOT_FOUND
            assert error.details().startswith(absent)
        await healthy()

    async def test_unknown_version(self, served: Served, tiny: ModuleType) -> None:
        error = await refused(served.stub.ModelInfer(tiny.infer_request("pair", version="3", a=A, b=A)))
        assert error.code() is Status.NOT_FOUND
        assert error.details().startswith("Request for unknown model: 'pair' version 3 is not found")


def set_shape(index: int, *shape: int) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        del request.inputs[index].shape[:]
        request.inputs[index].shape.extend(shape)

    return edit


def set_parameter(key: str, **value: object) -> Edit:
    return lambda request: request.parameters[key].CopyFrom(pb.InferParameter(**value))


def both_shapes(*shape: int) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        set_shape(0, *shape)(request)
        set_shape(1, *shape)(request)

    return edit


INVALID = {
    "version is no integer": (lambda r: setattr(r, "model_version", "newest"), ["integer", "newest"]),
    "datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP64"), ["FP32", "FP64"]),
    "unknown datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP31"), ["FP31"]),
    "datatype of images for a tensor": (
        lambda r: setattr(r.inputs[0], "datatype", "BYTES"),
        ["FP32", "BYTES"],
    ),
    "item shape": (both_shapes(2, 5), ["[-1,4]", "[2,5]"]),
    "too many dimensions": (both_shapes(2, 4, 1), ["[-1,4]", "[2,4,1]"]),
    "too few dimensions": (both_shapes(8), ["[-1,4]", "[8]"]),
    "no dimensions": (both_shapes(), ["[-1,4]", "[]"]),
    "batches disagree": (set_shape(0, 1, 4), ["agree", "[1,4]", "[2,4]"]),
    "batch over the maximum": (both_shapes(9, 4), ["<= 8", "9"]),
    "too few bytes": (lambda r: r.raw_input_contents.__setitem__(0, b"123"), ["32", "3"]),
    "too many bytes": (lambda r: r.raw_input_contents.__setitem__(0, bytes(33)), ["32", "33"]),
    "no bytes": (lambda r: r.raw_input_contents.__setitem__(0, b""), ["32", "0"]),
    "raw and typed": (lambda r: r.inputs[0].contents.fp32_contents.append(1), ["raw"]),
    "a raw content too few": (lambda r: r.raw_input_contents.pop(), ["2", "1"]),
    "a raw content too many": (lambda r: r.raw_input_contents.append(b""), ["2", "3"]),
    "no contents": (lambda r: r.ClearField("raw_input_contents"), []),
    "reserved parameter": (set_parameter("triton_secret", bool_param=True), ["triton_secret"]),
    "missing input": (lambda r: (r.inputs.pop(), r.raw_input_contents.pop()), ["'a', 'b'", "'a'"]),
    "no input": (lambda r: (r.ClearField("inputs"), r.ClearField("raw_input_contents")), ["'a', 'b'"]),
    "unknown input": (lambda r: setattr(r.inputs[0], "name", "c"), ["'a', 'b'", "'c'"]),
    "duplicate input": (lambda r: setattr(r.inputs[0], "name", "b"), ["b"]),
    "unknown output": (lambda r: r.outputs.add(name="product"), ["'sum', 'difference'", "product"]),
    "duplicate output": (lambda r: (r.outputs.add(name="sum"), r.outputs.add(name="sum")), ["sum"]),
    "negative priority": (set_parameter("priority", int64_param=-1), ["priority"]),
    "negative timeout": (set_parameter("timeout", int64_param=-1), ["timeout"]),
    "timeout of the wrong kind": (set_parameter("timeout", string_param="1"), ["timeout"]),
}


class TestInvalidArgument:
    @pytest.mark.parametrize("case", INVALID)
    async def test_it_says_what_was_expected_and_what_came(
        self, served: Served, tiny: ModuleType, healthy: Check, case: str
    ) -> None:
        edit, words = INVALID[case]
        request = pair(tiny)
        edit(request)
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.INVALID_ARGUMENT, error.details()
        for word in words:
            assert word in error.details()
        await healthy()

    async def test_a_message_that_is_none(self, served: Served, healthy: Check) -> None:
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        truncated = b"\x0a\xff"  # field 1, 255 bytes announced, none there
        for method in service.methods:
            if method.name == "ModelStreamInfer" or not method.input_type.fields:
                continue
            call = served.channel.unary_unary(f"/{service.full_name}/{method.name}")(truncated)
            error = await refused(call)
            assert error.code() is Status.INVALID_ARGUMENT, method.name
        await healthy()

    @pytest.mark.parametrize("shape", [(2, 3, 1), (1, 2, 3), (3, 2), (6,)])
    async def test_shape_without_a_batch_dimension(
        self, served: Served, tiny: ModuleType, shape: tuple[int, ...]
    ) -> None:
        request = tiny.infer_request("whole", x=np.zeros(shape, np.float32))
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.INVALID_ARGUMENT
        assert "[2,3]" in error.details()

    @pytest.mark.parametrize("key", ["config", "file:1/model.onnx", "file:../../etc/passwd"])
    async def test_load_parameters(self, served: Served, healthy: Check, key: str) -> None:
        request = pb.RepositoryModelLoadRequest(model_name="pair")
        request.parameters[key].string_param = "{}"
        error = await refused(served.stub.RepositoryModelLoad(request))
        assert error.code() is Status.INVALID_ARGUMENT
        assert key in error.details()
        await healthy()

    async def test_unload_parameters(self, served: Served) -> None:
        request = pb.RepositoryModelUnloadRequest(model_name="pair")
        request.parameters["now"].bool_param = True
        error = await refused(served.stub.RepositoryModelUnload(request))
        assert error.code() is Status.INVALID_ARGUMENT

    @pytest.mark.parametrize("classes", [-1, -(2**63)])
    async def test_classes_cannot_be_negative(self, served: Served, tiny: ModuleType, classes: int) -> None:
        request = pair(tiny)
        request.outputs.add(name="sum").parameters["classification"].int64_param = classes
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.INVALID_ARGUMENT


class TestUnavailable:
    @pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
    async def test_not_ready_or_shutting_down(self, served: Served, tiny: ModuleType, phase: Phase) -> None:
        served.lifecycle.phase = phase
        assert not (await served.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await served.stub.ServerLive(pb.ServerLiveRequest())).live
        error = await refused(served.stub.ModelInfer(pair(tiny)))
        assert error.code() is Status.UNAVAILABLE
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        served.lifecycle.phase = Phase.SERVING
        await served.stub.ModelInfer(pair(tiny))

    async def test_while_leaving_requests_are_still_answered(self, served: Served, tiny: ModuleType) -> None:
        served.lifecycle.phase = Phase.LEAVING
        assert not (await served.stub.ServerReady(pb.ServerReadyRequest())).ready
        await served.stub.ModelInfer(pair(tiny))

    async def test_queue_full(self, tiny: ModuleType, root: Path) -> None:
        async with tiny.start_server(root, max_queue_images=4) as served:
            first = served.stub.ModelInfer(gate_request(tiny, 4))
            await running(served)
            others = [served.stub.ModelInfer(gate_request(tiny, 4)) for _ in range(4)]
            done, _ = await asyncio.wait(
                map(asyncio.ensure_future, others), return_when=asyncio.FIRST_COMPLETED
            )
            error = done.pop().exception()
            assert error.code() is Status.UNAVAILABLE
            assert "queue is full" in error.details()
            assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
            await served.stub.ModelInfer(pair(tiny))  # another model's queue is its own
            served.gate.open.set()
            assert (await first).raw_output_contents


class TestDeadlineExceeded:
    async def test_the_requests_own_timeout(self, served: Served, tiny: ModuleType, healthy: Check) -> None:
        busy = served.stub.ModelInfer(gate_request(tiny))
        await running(served)
        request = gate_request(tiny)
        request.parameters["timeout"].int64_param = 2_000  # microseconds
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.DEADLINE_EXCEEDED
        assert "deadline" in error.details()  # the server's words: it was not the client who gave up
        await healthy()
        served.gate.open.set()
        assert (await busy).raw_output_contents

    async def test_the_clients_deadline(self, served: Served, tiny: ModuleType, healthy: Check) -> None:
        busy = served.stub.ModelInfer(gate_request(tiny))
        await running(served)
        error = await refused(served.stub.ModelInfer(gate_request(tiny), timeout=0.02))
        assert error.code() is Status.DEADLINE_EXCEEDED
        await healthy()
        served.gate.open.set()
        assert (await busy).raw_output_contents


class TestSharedMemory:
    async def test_unknown(self, served: Served, tiny: ModuleType) -> None:
        request = pair(tiny)
        del request.raw_input_contents[0]
        request.inputs[0].parameters["shared_memory_region"].string_param = "absent"
        request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 32
        calls = [
            served.stub.ModelInfer(request),
            served.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="absent")),
            served.stub.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name="x", key="/boulton-absent", byte_size=8)
            ),
        ]
        for call in calls:
            assert (await refused(call)).code() is Status.NOT_FOUND

    async def test_duplicate_and_out_of_range(
        self, served: Served, tiny: ModuleType, region: tuple[str, mmap.mmap]
    ) -> None:
        key, _ = region
        register = pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=64)
        await served.stub.SystemSharedMemoryRegister(register)
        error = await refused(served.stub.SystemSharedMemoryRegister(register))
        assert error.code() is Status.ALREADY_EXISTS
        for byte_size, offset in ((65, 0), (32, 33), (32, 2**63 - 1), (2**63 - 1, 32)):
            request = pair(tiny)
            request.outputs.add(name="sum").parameters["shared_memory_region"].string_param = "io"
            request.outputs[0].parameters["shared_memory_byte_size"].int64_param = byte_size
            request.outputs[0].parameters["shared_memory_offset"].int64_param = offset
            error = await refused(served.stub.ModelInfer(request))
            assert error.code() is Status.INVALID_ARGUMENT, (byte_size, offset)
        await served.stub.ModelInfer(pair(tiny))

    async def test_an_output_that_does_not_fit(
        self, served: Served, tiny: ModuleType, region: tuple[str, mmap.mmap]
    ) -> None:
        key, memory = region
        register = pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=4096)
        await served.stub.SystemSharedMemoryRegister(register)
        request = pair(tiny)
        request.outputs.add(name="sum").parameters["shared_memory_region"].string_param = "io"
        request.outputs[0].parameters["shared_memory_byte_size"].int64_param = 31
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.INVALID_ARGUMENT
        assert "32" in error.details()
        assert "31" in error.details()
        request.outputs[0].parameters["classification"].int64_param = 1
        request.outputs[0].parameters["shared_memory_byte_size"].int64_param = 4
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT
        assert bytes(memory) == bytes(4096)

    async def test_not_enabled(self, tiny: ModuleType, root: Path) -> None:
        async with tiny.start_server(root, models=("pair",), shared_memory=False) as served:
            request = pair(tiny)
            request.outputs.add(name="sum").parameters["shared_memory_region"].string_param = "io"
            request.outputs[0].parameters["shared_memory_byte_size"].int64_param = 32
            calls = [
                served.stub.ModelInfer(request),
                served.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest()),
                served.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest()),
                served.stub.SystemSharedMemoryRegister(
                    pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1)
                ),
            ]
            for call in calls:
                error = await refused(call)
                assert error.code() is Status.UNIMPLEMENTED
                assert "--shared-memory" in error.details()


class TestUnimplemented:
    async def test_what_is_not_offered(self, served: Served, healthy: Check) -> None:
        calls = [
            served.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest()),
            served.stub.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name="x", byte_size=1)),
            served.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest(name="x")),
            served.stub.TraceSetting(pb.TraceSettingRequest()),
            served.stub.LogSettings(pb.LogSettingsRequest()),
            served.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")),
        ]
        for call in calls:
            assert (await refused(call)).code() is Status.UNIMPLEMENTED
        await healthy()


class TestInternal:
    async def test_a_network_that_cannot_be_loaded(
        self, served: Served, tiny: ModuleType, healthy: Check
    ) -> None:
        tiny.put_model(served.root, "pair", 2, b"this is no protobuf")
        load = pb.RepositoryModelLoadRequest(model_name="pair")
        error = await refused(served.stub.RepositoryModelLoad(load))
        assert error.code() is Status.INTERNAL
        assert "failed to load 'pair'" in error.details()
        assert str(served.root) not in error.details()
        await healthy()  # version 1 keeps serving
        index = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        reasons = {(model.name, model.version): model.reason for model in index.models}
        assert "model.onnx" in reasons[("pair", "2")]


class TestCancelled:
    async def test_batch_mates_are_unaffected(self, served: Served, tiny: ModuleType) -> None:
        first = served.stub.ModelInfer(gate_request(tiny))
        await running(served)
        waiting = [served.stub.ModelInfer(gate_request(tiny)) for _ in range(3)]
        scheduler = served.models.get("gate").scheduler
        await tiny.until(lambda: scheduler.queued_images == 3)
        waiting[1].cancel()
        await tiny.until(lambda: scheduler.queued_images == 2)
        served.gate.open.set()
        assert (await first).raw_output_contents
        assert (await waiting[0]).raw_output_contents
        assert (await waiting[2]).raw_output_contents
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        assert sum(served.gate.engines[-1].batches) == 3
