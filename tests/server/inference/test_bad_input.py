"""Hostile requests: each is refused with the right status; the server lives and answers the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from tiny_server import Served

Status = grpc.StatusCode
A = np.arange(8, dtype=np.float32).reshape(2, 4)

HOSTILE_NAMES = [
    "../pair",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "pair/1",
    "pair/../pair",
    "pair\\..",
    "pair\0",
    "pair\r\nlevel=error forged",
    "\N{RIGHT-TO-LEFT OVERRIDE}riap",
    "x" * 100_000,
    "%s%n",
    "${jndi:ldap://x}",
]
HOSTILE_VERSIONS = ["../1", "1/../../..", "/1", "1\0", "1\r\n", "0x1", "1e0", "9" * 100_000]
HOSTILE_KEYS = ["/../etc/passwd", "../../etc/passwd", "/etc/passwd", "/a/b", "", "/", "/..", "a\0"]
LYING_LENGTHS = [b"\xff\xff\xff\xff", b"\x01\x00", b"\x05\0\0\0abc", b"\0\0\0\0", b"\x01\0\0\0ab"]


@pytest.fixture(params=[0, 1], ids=["own process", "front end"])
def front_ends(request: pytest.FixtureRequest) -> int:
    """Whatever is asked, the answer is the same from a front end."""
    return request.param


@pytest.fixture(autouse=True)
async def _alive_afterwards(served: Served, tiny: ModuleType) -> AsyncIterator[None]:
    """Whatever a test sent: the server must answer, and must not have logged an unexpected error."""
    yield
    assert (await served.stub.ServerReady(pb.ServerReadyRequest())).ready
    response = await served.stub.ModelInfer(pair(tiny))
    assert response.raw_output_contents[0] == (A + A).tobytes()


@pytest.fixture(autouse=True)
def _nothing_unexpected(caplog: pytest.LogCaptureFixture) -> object:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def pair(tiny: ModuleType) -> pb.ModelInferRequest:
    return tiny.infer_request("pair", a=A, b=A)


async def refused(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    async def test_models(self, served: Served, tiny: ModuleType, name: str) -> None:
        stub = served.stub
        calls = [
            stub.ModelInfer(tiny.infer_request(name, x=A)),
            stub.ModelMetadata(pb.ModelMetadataRequest(name=name)),
            stub.ModelConfig(pb.ModelConfigRequest(name=name)),
            stub.ModelStatistics(pb.ModelStatisticsRequest(name=name)),
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name)),
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name)),
        ]
        for call in calls:
            assert (await refused(call)).code() in (Status.NOT_FOUND, Status.INVALID_ARGUMENT)
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name=name))).ready

    @pytest.mark.parametrize("version", HOSTILE_VERSIONS)
    async def test_versions(self, served: Served, tiny: ModuleType, version: str) -> None:
        calls = [
            served.stub.ModelInfer(tiny.infer_request("pair", version=version, a=A, b=A)),
            served.stub.ModelMetadata(pb.ModelMetadataRequest(name="pair", version=version)),
            served.stub.ModelReady(pb.ModelReadyRequest(name="pair", version=version)),
        ]
        for call in calls:
            assert (await refused(call)).code() is Status.INVALID_ARGUMENT

    async def test_a_repository_entry_that_links_out(
        self, served: Served, tiny: ModuleType, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        tiny.put_model(outside, "secret", 1, tiny.pair_model())
        (served.root / "link").symlink_to(outside / "secret")
        load = pb.RepositoryModelLoadRequest(model_name="link")
        error = await refused(served.stub.RepositoryModelLoad(load))
        assert error.code() in (Status.NOT_FOUND, Status.INTERNAL)
        assert str(tmp_path) not in error.details()

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    async def test_shared_memory_keys(self, served: Served, key: str) -> None:
        register = pb.SystemSharedMemoryRegisterRequest(name="x", key=key, byte_size=8)
        error = await refused(served.stub.SystemSharedMemoryRegister(register))
        assert error.code() in (Status.INVALID_ARGUMENT, Status.NOT_FOUND)

    async def test_an_id_is_echoed_and_forges_no_log_line(
        self, served: Served, tiny: ModuleType, caplog: pytest.LogCaptureFixture
    ) -> None:
        forged = "1\r\n2026-01-01 ERROR forged"
        caplog.set_level(logging.DEBUG)
        response = await served.stub.ModelInfer(tiny.infer_request("pair", request_id=forged, a=A, b=A))
        assert response.id == forged
        assert (
            await refused(served.stub.ModelInfer(tiny.infer_request(forged, request_id=forged, a=A)))
        ).code()
        load = pb.RepositoryModelLoadRequest(model_name=forged)
        await refused(served.stub.RepositoryModelLoad(load))
        written = [
            record.getMessage() for record in caplog.records if record.name.startswith(("boulton", "server"))
        ]
        assert not [text for text in written if "\n" in text or "\r" in text]


class TestShapes:
    @pytest.mark.parametrize(
        "shape",
        [
            (0, 4),
            (2, 0),
            (-1, 4),
            (-(2**63), 4),
            (2**63 - 1, 4),
            (2**32, 2**32),
            (2**31, 2**31, 2**31),
            (3_037_000_500, 3_037_000_500),
            (1,) * 1000,
            (2**62, 4),
        ],
    )
    async def test_absurd_shapes(self, served: Served, tiny: ModuleType, shape: tuple[int, ...]) -> None:
        request = pair(tiny)
        for tensor in request.inputs:
            del tensor.shape[:]
            tensor.shape.extend(shape)
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    async def test_a_huge_batch_costs_nothing(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("colour", image=np.zeros((1, 4, 4, 3), np.uint8))
        request.inputs[0].shape[0] = 2**40
        error = await refused(served.stub.ModelInfer(request))
        assert error.code() is Status.INVALID_ARGUMENT

    async def test_many_encoded_images_are_announced_and_none_sent(self, served: Served) -> None:
        request = pb.ModelInferRequest(model_name="colour", raw_input_contents=[b""])
        request.inputs.add(name="image", datatype="BYTES", shape=(16,))
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        "raw",
        [
            b"\xff\xff\xff\xff",
            b"\x01\x00",
            b"\x05\x00\x00\x00abc",
            b"\x00\x00\x00\x00",
            b"\x01\x00\x00\x00ab",
        ],
    )
    async def test_lengths_that_lie(self, served: Served, raw: bytes) -> None:
        request = pb.ModelInferRequest(model_name="colour", raw_input_contents=[raw])
        request.inputs.add(name="image", datatype="BYTES", shape=(1,))
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT


class TestNumbers:
    async def test_too_many_inputs(self, served: Served, tiny: ModuleType) -> None:
        request = pair(tiny)
        for n in range(10_000):
            request.inputs.add(name=f"x{n}", datatype="FP32", shape=(2, 4))
            request.raw_input_contents.append(b"")
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    async def test_too_many_outputs(self, served: Served, tiny: ModuleType) -> None:
        request = pair(tiny)
        for _ in range(100_000):
            request.outputs.add(name="sum")
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    async def test_too_many_parameters(self, served: Served, tiny: ModuleType) -> None:
        request = pair(tiny)
        for n in range(10_000):
            request.parameters[f"x{n}"].bool_param = True
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    async def test_too_many_raw_contents(self, served: Served, tiny: ModuleType) -> None:
        request = pair(tiny)
        request.raw_input_contents.extend([b""] * 100_000)
        assert (await refused(served.stub.ModelInfer(request))).code() is Status.INVALID_ARGUMENT

    @pytest.mark.parametrize("classes", [2**62, 2**31, 10**6])
    async def test_very_many_classes_are_as_many_as_there_are(
        self, served: Served, tiny: ModuleType, classes: int
    ) -> None:
        request = pair(tiny)
        request.outputs.add(name="sum").parameters["classification"].int64_param = classes
        response = await served.stub.ModelInfer(request)
        assert tuple(response.outputs[0].shape) == (2, 4)

    async def test_many_distinct_headers_fill_no_memory(self, served: Served, tiny: ModuleType) -> None:
        for n in range(600):
            request = pair(tiny)
            request.parameters["mine"].int64_param = n
            await served.stub.ModelInfer(request)
        assert len(served.models.get("pair").plans) <= 256


def nested(depth: int) -> bytes:
    """A group inside a group inside ...: unknown fields that a recursive parser follows."""
    return b"\x9b\x06" * depth + b"\x9c\x06" * depth


class TestMessages:
    @pytest.mark.parametrize("depth", [101, 100_000])
    async def test_deep_recursion(self, served: Served, depth: int) -> None:
        for method in ("ModelInfer", "RepositoryModelLoad", "ModelMetadata", "ModelStatistics"):
            call = served.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(nested(depth))
            assert (await refused(call)).code() is Status.INVALID_ARGUMENT, method

    async def test_random_bytes(self, served: Served) -> None:
        random = np.random.default_rng(1)
        infer = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(200):
            error = await refused(infer(random.bytes(random.integers(1, 200))))
            assert error.code() in (Status.INVALID_ARGUMENT, Status.NOT_FOUND)

    async def test_a_damaged_request(self, served: Served, tiny: ModuleType) -> None:
        random = np.random.default_rng(2)
        whole = pair(tiny).SerializeToString()
        infer = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[random.integers(len(whole))] = random.integers(256)
            call = infer(bytes(damaged[: random.integers(1, len(whole) + 1)]))
            assert await call.code() in (Status.OK, Status.INVALID_ARGUMENT, Status.NOT_FOUND)

    async def test_invalid_utf8(self, served: Served) -> None:
        for method in ("ModelInfer", "ModelMetadata"):
            call = served.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(
                b"\x0a\x02\xff\xfe"
            )
            assert (await refused(call)).code() is Status.INVALID_ARGUMENT


async def test_the_limit_holds_after_decompression(tiny: ModuleType, root: Path) -> None:
    """64 MiB of zeros travel as 64 KiB; what counts is what they become."""
    limit = (("grpc.max_receive_message_length", 1 << 20),)
    async with tiny.start_server(root, models=("pair",), options=limit) as served:
        infer = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        bomb = bytes(64 << 20)
        error = await refused(infer(bomb, compression=grpc.Compression.Gzip))
        assert error.code() is Status.RESOURCE_EXHAUSTED
        error = await refused(infer(bomb))
        assert error.code() is Status.RESOURCE_EXHAUSTED
        small = pair(tiny).SerializeToString()
        assert await infer(small, compression=grpc.Compression.Gzip)


class TestCancellation:
    async def test_at_every_stage(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("gate", x=np.ones((1, 2), np.float32))
        service = served.models.get("gate")
        running = served.stub.ModelInfer(request)
        (engine,) = served.gate.engines
        assert await asyncio.to_thread(engine.running.wait, 10)
        before_sent = served.stub.ModelInfer(request)
        before_sent.cancel()
        queued = [served.stub.ModelInfer(request) for _ in range(6)]
        await tiny.until(lambda: service.users >= 7)
        for call in (running, *queued[:5]):
            call.cancel()
        await tiny.until(lambda: service.users == 1)
        served.gate.open.set()
        assert (await queued[5]).raw_output_contents
        for call in (running, before_sent, *queued[:5]):
            with pytest.raises(asyncio.CancelledError):
                await call
        assert service.scheduler.queued_images == 0

    async def test_while_images_are_decoded(self, served: Served, tiny: ModuleType) -> None:
        calls = []
        for _ in range(20):
            request = pb.ModelInferRequest(model_name="colour")
            request.inputs.add(name="image", datatype="BYTES", shape=(1,))
            request.raw_input_contents.append(tiny.bytes_tensor(tiny.picture((1, 2, 3), "PNG")))
            calls.append(served.stub.ModelInfer(request))
        for call in calls[::2]:
            await asyncio.sleep(0)
            call.cancel()
        for call in calls[1::2]:
            assert (await call).raw_output_contents
        await tiny.until(lambda: served.models.get("colour").users == 0)

    async def test_a_load(self, served: Served) -> None:
        for _ in range(5):
            call = served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair"))
            await asyncio.sleep(0)
            call.cancel()
        await served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair"))


async def test_load_unload_and_infer_at_once(served: Served, tiny: ModuleType) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="pair")
    unload = pb.RepositoryModelUnloadRequest(model_name="pair")
    answers = []

    async def client() -> None:
        for _ in range(60):
            call = served.stub.ModelInfer(pair(tiny))
            assert await call.code() in (Status.OK, Status.NOT_FOUND), await call.details()
            if await call.code() is Status.OK:
                answers.append((await call).raw_output_contents[0] == (A + A).tobytes())

    async def operator() -> None:
        for _ in range(5):
            await served.stub.RepositoryModelLoad(load)
            await served.stub.RepositoryModelUnload(unload)
        await served.stub.RepositoryModelLoad(load)

    await asyncio.gather(*(client() for _ in range(6)), operator(), operator())
    assert answers
    assert all(answers)
