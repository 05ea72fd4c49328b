"""Requests that fail leave nothing behind that only the collector finds: in a server it hardly ever comes."""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import os
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from protos import grpc_service_pb2 as pb
from server.scheduling.batch_assembly import Call
from server.wire.shared_memory import SHARED_OBJECTS, SharedObject

if TYPE_CHECKING:
    from tiny_server import Served


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    logging.disable()  # what pytest keeps of the log holds the frames where an error was raised
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


def left(*kinds: type) -> int:
    """How many objects of these types there are in this process, the lost ones included."""
    return sum(type(found) in kinds for found in gc.get_objects())


def at_index(tiny: ModuleType, index: int, **parameters: int) -> pb.ModelInferRequest:
    request = tiny.infer_request("table", x=np.array([index]))
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


@pytest.fixture
async def table(served: Served, tiny: ModuleType) -> Served:
    """A server with `table`, which looks rows up and fails where there is none."""
    rows = helper.make_tensor("rows", TensorProto.FLOAT, [4, 1], [0.0, 1.0, 2.0, 3.0])
    x, y = tiny.tensor("x", TensorProto.INT64, "batch"), tiny.tensor("y", TensorProto.FLOAT, "batch", 1)
    proto = tiny.model([helper.make_node("Gather", ["rows", "x"], ["y"])], [x], [y], [rows])
    tiny.put_model(served.root, "table", 1, proto)
    await served.models.load("table")
    return served


async def code_of(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_where_the_model_fails(table: Served, tiny: ModuleType) -> None:
    for _ in range(3):
        assert await code_of(table.stub.ModelInfer(at_index(tiny, 99))) is grpc.StatusCode.INTERNAL
    await tiny.until(lambda: not left(Call))


async def test_where_the_model_fails_in_a_stream(table: Served, tiny: ModuleType) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for index in (1, 99, 2, 99):
            yield at_index(tiny, index)

    answers = [answer.error_message async for answer in table.stub.ModelStreamInfer(requests())]
    assert [bool(text) for text in answers] == [False, True, False, True]
    await tiny.until(lambda: not left(Call))


async def test_where_the_deadline_passes_in_the_queue(served: Served, tiny: ModuleType) -> None:
    request = tiny.infer_request("gate", x=np.ones((4, 2), np.float32))
    first = served.stub.ModelInfer(request)
    assert await asyncio.to_thread(served.gate.engines[-1].running.wait, 10)
    staged = served.stub.ModelInfer(request)
    request.parameters["timeout"].int64_param = 50_000
    assert await code_of(served.stub.ModelInfer(request)) is grpc.StatusCode.DEADLINE_EXCEEDED
    served.gate.open.set()
    await asyncio.gather(first, staged)
    await tiny.until(lambda: not left(Call))


async def test_where_shared_memory_is_gone(
    served: Served, tiny: ModuleType, region: tuple[str, mmap.mmap]
) -> None:
    key, _ = region
    register = pb.SystemSharedMemoryRegisterRequest(name="pixels", key=key, byte_size=4096)
    await served.stub.SystemSharedMemoryRegister(register)
    first = served.stub.ModelInfer(tiny.infer_request("gate", x=np.ones((4, 2), np.float32)))
    assert await asyncio.to_thread(served.gate.engines[-1].running.wait, 10)
    request = pb.ModelInferRequest(model_name="gate")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    given.parameters["shared_memory_region"].string_param = "pixels"
    given.parameters["shared_memory_byte_size"].int64_param = 8
    waiting = served.stub.ModelInfer(request)
    await tiny.until(lambda: served.models.get("gate").scheduler.queued_images == 1)
    os.truncate(SHARED_OBJECTS / key[1:], 0)
    await served.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    served.gate.open.set()
    assert await code_of(waiting) is grpc.StatusCode.INVALID_ARGUMENT
    await first
    await tiny.until(lambda: not left(Call, SharedObject))
