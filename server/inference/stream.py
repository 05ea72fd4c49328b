"""ModelStreamInfer: many requests in flight on one stream.

Answers come in the order of the requests: they are computed together and only their writing waits, which
spares the client the sorting. A failed request is answered in band, and the stream goes on.

A request takes no task of its own: it is put into its model's queue as it is read, and the writer waits for
the answers one after the other. Only encoded images, which are decoded first, have a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from server.errors import RequestError
from server.inference.pipeline import InferPipeline, Started
from server.transport.rpc import Context, as_request_error, status_details
from server.wire.response_encoder import stream_response
from server.wire.tensors import RequestMessage

DEFAULT_IN_FLIGHT = 64

Refused: TypeAlias = bytes
"""The answer to a request that was refused when it came."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A request whose images are being decoded in a task."""

    request_id: str
    task: asyncio.Task[bytes]


Entry: TypeAlias = "Started | Decoding | Refused"


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
            while (entry := await pending.entries.get()) is not None:
                await context.write(await self._response(entry))
                pending.slots.release()
                del entry  # its answer must not be held while waiting for the next one
            await reading
        finally:
            reading.cancel()
            self._abandon(pending)

    async def _read(self, messages: AsyncIterator[bytes], context: Context, pending: _Pending) -> None:
        try:
            async for message in messages:
                await pending.slots.acquire()
                pending.entries.put_nowait(self._begin(message, context))
        finally:
            pending.entries.put_nowait(None)

    def _begin(self, message: bytes, context: Context) -> Entry:
        request: RequestMessage | None = None
        try:
            request = self._pipeline.parse(message)
            prepared = self._pipeline.prepare(request, context.time_remaining())
            if not prepared.plan.encoded:
                return self._pipeline.start(prepared)
            answer = self._pipeline.infer_encoded(prepared, in_stream=True)
            return Decoding(request.id, asyncio.create_task(answer))
        except Exception as error:
            request_id = _id_of(message) if request is None else request.id
            return error_response(as_request_error(error), request_id)

    async def _response(self, entry: Entry) -> bytes:
        if isinstance(entry, Refused):
            return entry
        try:
            if isinstance(entry, Decoding):
                return stream_response(await entry.task)
            return stream_response(await self._pipeline.finish(entry, in_stream=True))
        except Exception as error:
            return error_response(as_request_error(error), _entry_id(entry))

    def _abandon(self, pending: _Pending) -> None:
        """Withdraw what has not been written."""
        while not pending.entries.empty():
            entry = pending.entries.get_nowait()
            if isinstance(entry, Decoding):
                entry.task.cancel()
            elif isinstance(entry, Started):
                self._pipeline.abandon(entry)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Requests in work, in their order; None ends them. Each has a slot until its answer is written."""

    entries: asyncio.Queue[Entry | None]
    slots: asyncio.Semaphore


def error_response(error: RequestError, request_id: str) -> bytes:
    """An error in band, under the id of the request that it answers."""
    response = pb.ModelStreamInferResponse(error_message=status_details(error))
    response.infer_response.id = request_id
    return response.SerializeToString()


def _entry_id(entry: Started | Decoding) -> str:
    return entry.request_id if isinstance(entry, Decoding) else entry.prepared.request.id


def _id_of(message: bytes) -> str:
    """The id of a request that is refused for something else, as far as it can be read."""
    try:
        return pb.ModelInferRequest.FromString(message).id
    except DecodeError:
        return ""
