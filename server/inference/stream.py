"""What answers the requests of a ModelInferStream: a failed one is answered in band, and the stream goes on.

A request is put into its model's queue as it is read. Only encoded images, which are decoded first, have a
task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from server.errors import RequestError
from server.inference.pipeline import InferPipeline, Started
from server.transport.rpc import Caller, as_request_error, status_details
from server.wire.request_parser import SplitRequest
from server.wire.response_encoder import stream_response
from server.wire.tensors import RequestMessage

Refused: TypeAlias = bytes
"""The answer to a request that was refused when it came."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A request whose images are being decoded in a task."""

    request_id: str
    task: asyncio.Task[bytes]


Entry: TypeAlias = "Started | Decoding | Refused"


class StreamedInference:
    """Answers requests that came in a stream; a `Worker` of `ordered_stream`. Belongs to the event loop.

    Args:
        pipeline: answers each request.
    """

    def __init__(self, pipeline: InferPipeline) -> None:
        self._pipeline = pipeline

    def begin(self, message: bytes, caller: Caller) -> Entry:
        """Begin with a request as it came."""
        return self._begin(lambda: self._pipeline.parse(message), lambda: _id_of(message), caller)

    def begin_split(self, split: SplitRequest, caller: Caller) -> Entry:
        """Begin with a request whose parts were found elsewhere."""
        return self._begin(
            lambda: self._pipeline.resolve(split), lambda: split.id.decode(errors="replace"), caller
        )

    async def response(self, entry: Entry) -> bytes:
        """Wait for the answer to what was begun."""
        if isinstance(entry, Refused):
            return entry
        try:
            if isinstance(entry, Decoding):
                return stream_response(await entry.task)
            return stream_response(await self._pipeline.finish(entry, in_stream=True))
        except Exception as error:
            return error_response(as_request_error(error), _entry_id(entry))

    def abandon(self, entry: Entry) -> None:
        """Withdraw a request that nobody will wait for."""
        if isinstance(entry, Decoding):
            entry.task.cancel()
        elif isinstance(entry, Started):
            self._pipeline.abandon(entry)

    def _begin(
        self, parse: Callable[[], RequestMessage], read_id: Callable[[], str], caller: Caller
    ) -> Entry:
        request: RequestMessage | None = None
        try:
            request = parse()
            prepared = self._pipeline.prepare(request, caller.time_remaining())
            if not prepared.plan.encoded:
                return self._pipeline.start(prepared)
            answer = self._pipeline.infer_encoded(prepared, in_stream=True)
            return Decoding(request.id, asyncio.create_task(answer))
        except Exception as error:
            return error_response(as_request_error(error), read_id() if request is None else request.id)


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
