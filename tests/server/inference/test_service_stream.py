"""ModelStreamInfer: order, errors in band, bounds, cancellation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from tiny_server import Served

A = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(params=[0, 1], ids=["own process", "front end"])
def front_ends(request: pytest.FixtureRequest) -> int:
    """Whatever is asked, the answer is the same from a front end."""
    return request.param


def gate_request(tiny: ModuleType, request_id: str) -> pb.ModelInferRequest:
    return tiny.infer_request("gate", request_id=request_id, x=np.ones((1, 2), np.float32))


async def send(stream: grpc.aio.StreamStreamCall, *requests: pb.ModelInferRequest) -> None:
    for request in requests:
        await stream.write(request)
    await stream.done_writing()


async def test_answers_come_in_the_order_of_the_requests(served: Served, tiny: ModuleType) -> None:
    stream = served.stub.ModelStreamInfer()
    requests = [tiny.infer_request("pair", request_id=str(n), a=A + n, b=A) for n in range(50)]
    sending = asyncio.create_task(send(stream, *requests))
    answers = [answer async for answer in stream]
    await sending
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(50)]
    for n, answer in enumerate(answers):
        assert answer.error_message == ""
        assert answer.infer_response.raw_output_contents[0] == (A + n + A).tobytes()
    assert await stream.code() is grpc.StatusCode.OK


async def test_requests_of_one_stream_share_batches(served: Served, tiny: ModuleType) -> None:
    stream = served.stub.ModelStreamInfer()
    await send(stream, *(gate_request(tiny, str(n)) for n in range(5)))
    service = served.models.get("gate")
    (engine,) = served.gate.engines
    await tiny.until(lambda: service.users == 5)
    served.gate.open.set()
    assert len([answer async for answer in stream]) == 5
    assert len(engine.batches) < 5


async def test_an_error_is_answered_in_band_under_its_id(served: Served, tiny: ModuleType) -> None:
    good = tiny.infer_request("pair", request_id="good", a=A, b=A)
    unknown = tiny.infer_request("absent", request_id="unknown", a=A)
    misshapen = tiny.infer_request("pair", request_id="misshapen", a=A, b=A[:1])
    reserved = tiny.infer_request("pair", request_id="reserved", a=A, b=A)
    reserved.parameters["triton_secret"].bool_param = True
    stream = served.stub.ModelStreamInfer()
    await send(stream, unknown, good, misshapen, reserved, good)
    answers = [answer async for answer in stream]
    ids = [answer.infer_response.id for answer in answers]
    assert ids == ["unknown", "good", "misshapen", "reserved", "good"]
    assert [bool(answer.error_message) for answer in answers] == [True, False, True, True, False]
    assert answers[0].error_message.startswith("Request for unknown model: 'absent' is not found")
    assert await stream.code() is grpc.StatusCode.OK


async def test_bytes_that_are_no_request_are_answered_in_band(served: Served, tiny: ModuleType) -> None:
    stream = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    await stream.write(b"\x0a\xff")
    await stream.write(tiny.infer_request("pair", request_id="good", a=A, b=A).SerializeToString())
    await stream.done_writing()
    answers = [pb.ModelStreamInferResponse.FromString(answer) async for answer in stream]
    assert answers[0].error_message
    assert answers[1].infer_response.id == "good"


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_final_response_says_so_when_asked(served: Served, tiny: ModuleType, wanted: bool) -> None:
    request = tiny.infer_request("pair", request_id="1", a=A, b=A)
    request.parameters["triton_enable_empty_final_response"].bool_param = wanted
    stream = served.stub.ModelStreamInfer()
    await send(stream, request)
    (answer,) = [answer async for answer in stream]
    parameters = answer.infer_response.parameters
    assert ("triton_final_response" in parameters) is wanted
    if wanted:
        assert parameters["triton_final_response"].bool_param is True
    assert answer.infer_response.raw_output_contents[0] == (A + A).tobytes()


async def test_the_number_in_flight_is_bounded(tiny: ModuleType, root: Path) -> None:
    async with tiny.start_server(root, in_flight=3) as served:
        stream = served.stub.ModelStreamInfer()
        sending = asyncio.create_task(send(stream, *(gate_request(tiny, str(n)) for n in range(20))))
        service = served.models.get("gate")
        await tiny.until(lambda: service.users == 3)
        await served.stub.ModelInfer(tiny.infer_request("pair", a=A, b=A))  # time for more to come in
        assert service.users == 3
        served.gate.open.set()
        assert [answer.infer_response.id async for answer in stream] == [str(n) for n in range(20)]
        await sending


async def test_cancelling_a_stream_cancels_what_is_in_flight(served: Served, tiny: ModuleType) -> None:
    mate = served.stub.ModelInfer(gate_request(tiny, "mate"))
    (engine,) = served.gate.engines
    assert await asyncio.to_thread(engine.running.wait, 10)
    stream = served.stub.ModelStreamInfer()
    for n in range(4):
        await stream.write(gate_request(tiny, str(n)))
    service = served.models.get("gate")
    await tiny.until(lambda: service.users == 5)
    stream.cancel()
    await tiny.until(lambda: service.users == 1)
    assert service.scheduler.queued_images == 0
    served.gate.open.set()
    assert (await mate).id == "mate"
    assert sum(engine.batches) == 1


async def test_a_stream_without_requests(served: Served) -> None:
    stream = served.stub.ModelStreamInfer()
    await stream.done_writing()
    assert [answer async for answer in stream] == []
    assert await stream.code() is grpc.StatusCode.OK


async def test_unloading_ends_requests_not_the_stream(served: Served, tiny: ModuleType) -> None:
    stream = served.stub.ModelStreamInfer()
    request = tiny.infer_request("pair", request_id="1", a=A, b=A)
    await stream.write(request)
    assert (await stream.read()).error_message == ""
    await served.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="pair"))
    await stream.write(request)
    assert "unknown model" in (await stream.read()).error_message
    await served.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="pair"))
    await stream.write(request)
    assert (await stream.read()).error_message == ""
    await stream.done_writing()
