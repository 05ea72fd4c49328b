"""What a client gets from every method of the protocol, over a real socket."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from protos import model_config_pb2

if TYPE_CHECKING:
    from tiny_server import Served

PIXELS = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
MEANS = PIXELS.mean(axis=(1, 2), dtype=np.float32)
A = np.arange(8, dtype=np.float32).reshape(2, 4)
B = np.full((2, 4), 10, np.float32)


@pytest.fixture(params=[0, 1], ids=["own process", "front end"])
def front_ends(request: pytest.FixtureRequest) -> int:
    """Whatever is asked, the answer is the same from a front end."""
    return request.param


def output(response: pb.ModelInferResponse, index: int = 0) -> np.ndarray:
    dtype = {"FP32": np.float32}[response.outputs[index].datatype]
    shape = tuple(response.outputs[index].shape)
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(shape)


def strings(raw: bytes) -> list[str]:
    """Take apart BYTES elements: a little-endian length before each."""
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found


class TestHealthAndMetadata:
    async def test_live_and_ready(self, served: Served) -> None:
        assert (await served.stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await served.stub.ServerReady(pb.ServerReadyRequest())).ready

    @pytest.mark.parametrize(
        ("name", "version", "ready"),
        [("pair", "", True), ("pair", "1", True), ("pair", "2", False), ("absent", "", False)],
    )
    async def test_model_ready(self, served: Served, name: str, version: str, ready: bool) -> None:
        response = await served.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))
        assert response.ready is ready

    async def test_server_metadata_lists_what_works(self, served: Served) -> None:
        metadata = await served.stub.ServerMetadata(pb.ServerMetadataRequest())
        assert metadata.name == "boulton"
        assert metadata.version
        assert set(metadata.extensions) == {
            "classification",
            "model_configuration",
            "model_repository",
            "model_repository(unload_dependents)",
            "schedule_policy",
            "statistics",
            "system_shared_memory",
        }

    async def test_shared_memory_is_listed_only_when_enabled(self, tiny: ModuleType, root: Path) -> None:
        async with tiny.start_server(root, models=(), shared_memory=False) as served:
            metadata = await served.stub.ServerMetadata(pb.ServerMetadataRequest())
            assert "system_shared_memory" not in metadata.extensions

    async def test_model_metadata(self, served: Served) -> None:
        metadata = await served.stub.ModelMetadata(pb.ModelMetadataRequest(name="pair"))
        assert (metadata.name, metadata.versions, metadata.platform) == ("pair", ["1"], "onnxruntime_onnx")
        inputs = [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.inputs]
        outputs = [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.outputs]
        assert inputs == [("a", "FP32", (-1, 4)), ("b", "FP32", (-1, 4))]
        assert outputs == [("sum", "FP32", (-1, 4)), ("difference", "FP32", (-1, 4))]

    async def test_metadata_without_a_batch_dimension(self, served: Served) -> None:
        metadata = await served.stub.ModelMetadata(pb.ModelMetadataRequest(name="whole", version="7"))
        assert tuple(metadata.inputs[0].shape) == (2, 3)

    async def test_model_config(self, served: Served) -> None:
        config = (await served.stub.ModelConfig(pb.ModelConfigRequest(name="colour"))).config
        assert (config.name, config.backend, config.max_batch_size) == ("colour", "onnxruntime", 16)
        assert [(t.name, t.data_type, tuple(t.dims)) for t in config.input] == [
            ("image", model_config_pb2.TYPE_UINT8, (4, 4, 3))
        ]
        assert [(t.name, t.data_type, tuple(t.dims)) for t in config.output] == [
            ("scores", model_config_pb2.TYPE_FP32, (3,))
        ]
        assert list(config.dynamic_batching.preferred_batch_size) == [4]
        assert config.parameters["precision"].string_value == "fp32"
        assert list(config.version_policy.specific.versions) == [2]

    async def test_config_without_a_batch_dimension(self, served: Served) -> None:
        config = (await served.stub.ModelConfig(pb.ModelConfigRequest(name="whole"))).config
        assert config.max_batch_size == 0
        assert not config.HasField("dynamic_batching")
        assert tuple(config.input[0].dims) == (2, 3)


class TestInfer:
    async def test_an_answer_says_what_it_is(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("pair", request_id="seven", a=A, b=B)
        response = await served.stub.ModelInfer(request)
        assert (response.model_name, response.model_version, response.id) == ("pair", "1", "seven")
        assert [(t.name, t.datatype, tuple(t.shape)) for t in response.outputs] == [
            ("sum", "FP32", (2, 4)),
            ("difference", "FP32", (2, 4)),
        ]
        assert not any(t.HasField("contents") for t in response.outputs)
        np.testing.assert_array_equal(output(response, 0), A + B)
        np.testing.assert_array_equal(output(response, 1), A - B)

    async def test_inputs_in_any_order_and_outputs_as_asked(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("pair", b=B, a=A)
        request.outputs.add(name="difference")
        response = await served.stub.ModelInfer(request)
        assert [t.name for t in response.outputs] == ["difference"]
        np.testing.assert_array_equal(output(response), A - B)

    async def test_the_same_header_with_other_contents(self, served: Served, tiny: ModuleType) -> None:
        for step in range(3):
            response = await served.stub.ModelInfer(
                tiny.infer_request("pair", request_id=str(step), a=A + step, b=B)
            )
            assert response.id == str(step)
            np.testing.assert_array_equal(output(response), A + step + B)

    async def test_more_images_than_the_batch_limit(self, served: Served, tiny: ModuleType) -> None:
        pixels = np.arange(11 * 48, dtype=np.uint8).reshape(11, 4, 4, 3)
        response = await served.stub.ModelInfer(tiny.infer_request("colour", image=pixels))
        np.testing.assert_allclose(output(response), pixels.mean(axis=(1, 2)))
        assert max(served.models.get("colour").scheduler.statistics.batch_stats) <= 4

    async def test_without_a_batch_dimension(self, served: Served, tiny: ModuleType) -> None:
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        response = await served.stub.ModelInfer(tiny.infer_request("whole", x=x))
        np.testing.assert_array_equal(output(response), x + x)

    async def test_typed_contents(self, served: Served) -> None:
        request = pb.ModelInferRequest(model_name="pair")
        for name, values in (("a", A), ("b", B)):
            tensor = request.inputs.add(name=name, datatype="FP32", shape=values.shape)
            tensor.contents.fp32_contents.extend(values.ravel().tolist())
        response = await served.stub.ModelInfer(request)
        np.testing.assert_array_equal(output(response), A + B)
        assert len(response.raw_output_contents) == 2

    async def test_every_datatype_raw_and_typed(self, served: Served, tiny: ModuleType) -> None:
        for datatype, values in tiny.typed_values().items():
            tiny.put_model(served.root, datatype, 1, tiny.typed_model(tiny.ONNX_TYPES[datatype]))
            await served.models.load(datatype)
            answer = await served.stub.ModelInfer(tiny.infer_request(datatype, x=values))
            assert answer.raw_output_contents[0] == values.tobytes(), datatype
            if datatype != "FP16":
                answer = await served.stub.ModelInfer(tiny.typed_request(datatype, values))
                assert answer.raw_output_contents[0] == values.tobytes(), datatype

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("triton_enable_empty_final_response", {"bool_param": True}),
            ("timeout", {"int64_param": 20_000_000}),
            ("priority", {"uint64_param": 1}),
            ("my_own", {"string_param": "anything"}),
        ],
    )
    async def test_parameters_that_are_accepted(
        self, served: Served, tiny: ModuleType, key: str, value: dict
    ) -> None:
        request = tiny.infer_request("pair", a=A, b=B)
        request.parameters[key].CopyFrom(pb.InferParameter(**value))
        np.testing.assert_array_equal(output(await served.stub.ModelInfer(request)), A + B)


class TestClassification:
    async def test_with_labels(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("colour", image=PIXELS)
        request.outputs.add(name="scores").parameters["classification"].int64_param = 2
        response = await served.stub.ModelInfer(request)
        assert (response.outputs[0].datatype, tuple(response.outputs[0].shape)) == ("BYTES", (2, 2))
        named = [text.split(":") for text in strings(response.raw_output_contents[0])]
        assert [(index, label) for _, index, label in named] == [("2", "blue"), ("1", "green")] * 2
        assert [float(value) for value, _, _ in named] == [MEANS[0, 2], MEANS[0, 1], MEANS[1, 2], MEANS[1, 1]]

    async def test_without_labels_and_more_than_there_are(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("pair", a=A[:1], b=B[:1])
        request.outputs.add(name="sum").parameters["classification"].int64_param = 100
        request.outputs.add(name="difference")
        response = await served.stub.ModelInfer(request)
        assert tuple(response.outputs[0].shape) == (1, 4)
        assert [text.split(":")[1:] for text in strings(response.raw_output_contents[0])] == [
            [n] for n in "3210"
        ]
        np.testing.assert_array_equal(output(response, 1), A[:1] - B[:1])

    async def test_without_a_batch_dimension(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("whole", x=np.arange(6, dtype=np.float32).reshape(2, 3))
        request.outputs.add(name="y").parameters["classification"].int64_param = 1
        response = await served.stub.ModelInfer(request)
        assert tuple(response.outputs[0].shape) == (1,)
        assert strings(response.raw_output_contents[0])[0].endswith(":5")


def encoded_request(
    tiny: ModuleType, *pictures: bytes, shape: tuple[int, ...] | None = None
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="colour")
    request.inputs.add(name="image", datatype="BYTES", shape=shape or (len(pictures),))
    request.raw_input_contents.append(tiny.bytes_tensor(*pictures))
    return request


class TestEncodedImages:
    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    async def test_jpeg_and_png(self, served: Served, tiny: ModuleType, shape: tuple[int, ...]) -> None:
        request = encoded_request(
            tiny, tiny.picture((255, 0, 0), "PNG"), tiny.picture((0, 0, 255), "JPEG"), shape=shape
        )
        scores = output(await served.stub.ModelInfer(request))
        np.testing.assert_allclose(scores, [[255, 0, 0], [0, 0, 255]], atol=3)

    async def test_typed(self, served: Served, tiny: ModuleType) -> None:
        request = pb.ModelInferRequest(model_name="colour")
        tensor = request.inputs.add(name="image", datatype="BYTES", shape=(1,))
        tensor.contents.bytes_contents.append(tiny.picture((0, 255, 0), "PNG"))
        np.testing.assert_allclose(output(await served.stub.ModelInfer(request)), [[0, 255, 0]])

    async def test_one_bad_image_of_two(self, served: Served, tiny: ModuleType) -> None:
        request = encoded_request(tiny, tiny.picture((255, 0, 0), "PNG"), b"not an image")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def in_region(tensor: Message, name: str, byte_size: int, offset: int = 0) -> None:
    tensor.parameters["shared_memory_region"].string_param = name
    tensor.parameters["shared_memory_byte_size"].int64_param = byte_size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


class TestSharedMemory:
    async def test_inputs_and_outputs(self, served: Served, region: tuple[str, mmap.mmap]) -> None:
        key, memory = region
        memory[:32], memory[64:96] = A.tobytes(), B.tobytes()
        await served.stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=4096)
        )
        request = pb.ModelInferRequest(model_name="pair")
        in_region(request.inputs.add(name="a", datatype="FP32", shape=(2, 4)), "io", 32)
        in_region(request.inputs.add(name="b", datatype="FP32", shape=(2, 4)), "io", 32, 64)
        in_region(request.outputs.add(name="sum"), "io", 32, 128)
        request.outputs.add(name="difference")
        response = await served.stub.ModelInfer(request)
        assert memory[128:160] == (A + B).tobytes()
        np.testing.assert_array_equal(output(response, 1), A - B)
        assert response.raw_output_contents[0] == b""
        assert response.outputs[0].parameters["shared_memory_region"].string_param == "io"
        assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == 32

    async def test_raw_contents_skip_inputs_in_shared_memory(
        self, served: Served, region: tuple[str, mmap.mmap]
    ) -> None:
        key, memory = region
        memory[:32] = A.tobytes()
        await served.stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=4096)
        )
        request = pb.ModelInferRequest(model_name="pair")
        in_region(request.inputs.add(name="a", datatype="FP32", shape=(2, 4)), "io", 32)
        request.inputs.add(name="b", datatype="FP32", shape=(2, 4))
        request.raw_input_contents.append(B.tobytes())
        np.testing.assert_array_equal(output(await served.stub.ModelInfer(request)), A + B)

    async def test_classes_and_encoded_images(
        self, served: Served, tiny: ModuleType, region: tuple[str, mmap.mmap]
    ) -> None:
        key, memory = region
        png = tiny.picture((9, 8, 7), "PNG")
        element = tiny.bytes_tensor(png)
        memory[: len(element)] = element
        await served.stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=4096)
        )
        request = pb.ModelInferRequest(model_name="colour")
        in_region(request.inputs.add(name="image", datatype="BYTES", shape=(1,)), "io", len(element))
        wanted = request.outputs.add(name="scores")
        wanted.parameters["classification"].int64_param = 1
        in_region(wanted, "io", 64, 2048)
        await served.stub.ModelInfer(request)
        length = int.from_bytes(memory[2048:2052], "little")
        assert memory[2052 : 2052 + length].decode().endswith(":0:red")

    @pytest.mark.parametrize("other", ["", "with another"])
    async def test_a_region_made_smaller_while_a_request_waits_fails_that_request_alone(
        self, served: Served, region: tuple[str, mmap.mmap], tiny: ModuleType, other: str
    ) -> None:
        key, _ = region
        await served.stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="io", key=key, byte_size=4096)
        )
        rows = np.arange(4, dtype=np.float32).reshape(2, 2)
        occupied = served.stub.ModelInfer(tiny.infer_request("gate", x=rows[:1]))
        await tiny.until(lambda: any(engine.running.is_set() for engine in served.gate.engines))
        request = pb.ModelInferRequest(model_name="gate")
        in_region(request.inputs.add(name="x", datatype="FP32", shape=(1, 2)), "io", 8, 4088)
        scheduler = served.models.get("gate").scheduler
        shared = served.stub.ModelInfer(request)
        await tiny.until(lambda: scheduler.queued_requests == 1)
        healthy = [served.stub.ModelInfer(tiny.infer_request("gate", x=rows))] if other else []
        await tiny.until(lambda: scheduler.queued_requests == 1 + len(healthy))
        os.truncate(f"/dev/shm{key}", 100)  # noqa: S108  # where Linux keeps these objects
        served.gate.open.set()
        with pytest.raises(grpc.aio.AioRpcError, match="made smaller") as caught:
            await shared
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for call in healthy:
            np.testing.assert_array_equal(output(await call).reshape(2, 2), rows)
        await occupied

    async def test_status_and_unregister(self, served: Served, region: tuple[str, mmap.mmap]) -> None:
        key, _ = region
        await served.stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="io", key=key, offset=96, byte_size=1000)
        )
        status = await served.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        found = status.regions["io"]
        assert (found.name, found.key, found.offset, found.byte_size) == ("io", key, 96, 1000)
        await served.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="io"))
        status = await served.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        assert not status.regions

    async def test_unregister_all(self, served: Served, region: tuple[str, mmap.mmap]) -> None:
        key, _ = region
        for name in ("one", "two"):
            await served.stub.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=10)
            )
        await served.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
        await served.stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
        status = await served.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
        assert not status.regions


class TestStatistics:
    async def test_they_count_what_was_done(self, served: Served, tiny: ModuleType) -> None:
        for images in (1, 3):
            pixels = np.zeros((images, 4, 4, 3), np.uint8)
            await served.stub.ModelInfer(tiny.infer_request("colour", image=pixels))
        response = await served.stub.ModelStatistics(pb.ModelStatisticsRequest(name="colour"))
        (stats,) = response.model_stats
        assert (stats.name, stats.version) == ("colour", "2")
        assert (stats.inference_count, stats.execution_count) == (4, 2)
        assert stats.last_inference > 0
        inference = stats.inference_stats
        assert (inference.success.count, inference.fail.count, inference.queue.count) == (2, 0, 2)
        assert inference.success.ns >= inference.compute_infer.ns > 0
        assert [(batch.batch_size, batch.compute_infer.count) for batch in stats.batch_stats] == [
            (1, 1),
            (3, 1),
        ]
        assert all(batch.compute_infer.ns > 0 for batch in stats.batch_stats)

    async def test_they_are_cumulative(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("pair", a=A, b=B)
        counts = []
        for _ in range(3):
            await served.stub.ModelInfer(request)
            response = await served.stub.ModelStatistics(pb.ModelStatisticsRequest(name="pair", version="1"))
            counts.append(response.model_stats[0].inference_count)
        assert counts == [2, 4, 6]

    async def test_without_a_name_all_models_are_listed(self, served: Served) -> None:
        response = await served.stub.ModelStatistics(pb.ModelStatisticsRequest())
        assert {stats.name for stats in response.model_stats} == {"colour", "pair", "whole", "gate"}


class TestRepositoryControl:
    async def test_index(self, served: Served) -> None:
        index = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        states = {(model.name, model.version): model.state for model in index.models}
        assert states[("colour", "1")] == "UNAVAILABLE"
        assert states[("colour", "2")] == "READY"
        ready = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        assert {model.name for model in ready.models} == {"colour", "pair", "whole", "gate"}

    async def test_unload_and_load(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("pair", a=A, b=B)
        unload = pb.RepositoryModelUnloadRequest(model_name="pair")
        unload.parameters["unload_dependents"].bool_param = False
        await served.stub.RepositoryModelUnload(unload)
        assert not (await served.stub.ModelReady(pb.ModelReadyRequest(name="pair"))).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair"))
        np.testing.assert_array_equal(output(await served.stub.ModelInfer(request)), A + B)

    async def test_a_new_version_is_served_after_load(self, served: Served, tiny: ModuleType) -> None:
        request = tiny.infer_request("colour", image=PIXELS)
        await served.stub.ModelInfer(request)
        tiny.put_model(served.root, "colour", 10, tiny.colour_model(scale=2.0))
        await served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="colour"))
        response = await served.stub.ModelInfer(request)
        assert response.model_version == "10"
        np.testing.assert_allclose(output(response), 2 * MEANS)


async def test_every_method_of_the_protocol_has_a_handler(served: Served) -> None:
    """A client that finds a method missing gives up; `Method not found!` is gRPC's word for it."""
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in service.methods:
        call = (
            served.channel.stream_stream(f"/{service.full_name}/{method.name}")([])
            if method.client_streaming
            else served.channel.unary_unary(f"/{service.full_name}/{method.name}")(b"")
        )
        assert "not found!" not in (await call.details() or ""), method.name
