"""ModelStreamInfer: many requests in flight on one stream.

Answers come in the order of the requests: they are computed together and only their writing waits, which
spares the client the sorting. A failed request is answered in band, and the stream goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from server.errors import RequestError
from server.inference.pipeline import InferPipeline
from server.transport.rpc import Context, as_request_error, status_details
from server.wire.response_encoder import stream_response
from server.wire.tensors import RequestMessage

DEFAULT_IN_FLIGHT = 64


class InferStream:
    """Answers streams of requests.

    Args:
        pipeline: answers each request.
        in_flight: how many requests of one stream are in work at once; more are left in the transport.
    """

    def __init__(self, pipeline: InferPipeline, in_flight: int = DEFAULT_IN_FLIGHT) -> None:
        self._pipeline = pipeline
        self._in_flight = in_flight

    async def answer(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Answer one stream until the client ends it; when it is cancelled, so is what is in flight."""
        pending = _Pending(asyncio.Queue(), asyncio.Semaphore(self._in_flight))
        reading = asyncio.create_task(self._read(messages, context, pending))
        try:
            while (task := await pending.tasks.get()) is not None:
                await context.write(await task)
                pending.slots.release()
                del task  # its answer must not be held while waiting for the next one
            await reading
        finally:
            reading.cancel()
            pending.cancel()

    async def _read(self, messages: AsyncIterator[bytes], context: Context, pending: _Pending) -> None:
        try:
            async for message in messages:
                await pending.slots.acquire()
                pending.tasks.put_nowait(asyncio.create_task(self._answer_one(message, context)))
        finally:
            pending.tasks.put_nowait(None)

    async def _answer_one(self, message: bytes, context: Context) -> bytes:
        request: RequestMessage | None = None
        try:
            request = self._pipeline.parse(message)
            response = await self._pipeline.infer(request, context.time_remaining(), in_stream=True)
        except Exception as error:
            request_id = _id_of(message) if request is None else request.id
            return error_response(as_request_error(error), request_id)
        return stream_response(response)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Answers in work, in the order of their requests; None ends them. Each has a slot until written."""

    tasks: asyncio.Queue[asyncio.Task[bytes] | None]
    slots: asyncio.Semaphore

    def cancel(self) -> None:
        """Withdraw what is left."""
        while not self.tasks.empty():
            if (task := self.tasks.get_nowait()) is not None:
                task.cancel()


def error_response(error: RequestError, request_id: str) -> bytes:
    """An error in band, under the id of the request that it answers."""
    response = pb.ModelStreamInferResponse(error_message=status_details(error))
    response.infer_response.id = request_id
    return response.SerializeToString()


def _id_of(message: bytes) -> str:
    """The id of a request that is refused for something else, as far as it can be read."""
    try:
        return pb.ModelInferRequest.FromString(message).id
    except DecodeError:
        return ""
