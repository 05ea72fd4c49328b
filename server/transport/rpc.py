"""From Python functions to gRPC methods: bytes in, bytes out, `RequestError` to status.

All methods are registered as raw bytes, so that a message that does not parse is answered with
INVALID_ARGUMENT and a hot path may walk the bytes itself.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from server.errors import Internal, InvalidArgument, RequestError, Unavailable, without_origin


class Caller(Protocol):
    """Whoever waits for an answer; gRPC's contexts are such."""

    def time_remaining(self) -> float | None:
        """Seconds until it gives up; None: never."""


Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
UnaryHandler: TypeAlias = Callable[[bytes, Caller], Awaitable[bytes]]
StreamHandler: TypeAlias = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
MessageT = TypeVar("MessageT", bound=Message)

# gRPC limits metadata to 8 KiB by default; a longer text would hide the status it belongs to.
MAX_DETAILS_CHARS = 1024

logger = logging.getLogger("boulton.rpc")


def unary(answer: UnaryHandler) -> MethodHandler:
    """Register a coroutine `bytes -> bytes`; what it raises becomes a status."""

    async def handle(message: bytes, context: Context) -> bytes:
        try:
            return await answer(message, context)
        except Exception as error:
            await _abort(context, as_request_error(error))

    return grpc.unary_unary_rpc_method_handler(handle)


def unary_message(
    request_type: Callable[[], MessageT], answer: Callable[[MessageT], Awaitable[Message]]
) -> MethodHandler:
    """Register a coroutine from one parsed message to another."""
    return unary(parsing(request_type, answer))


def parsing(
    request_type: Callable[[], MessageT], answer: Callable[[MessageT], Awaitable[Message]]
) -> UnaryHandler:
    """Turn a coroutine from one message to another into one from bytes to bytes."""

    async def handle(message: bytes, _caller: Caller) -> bytes:
        response = await answer(parse_message(request_type, message))
        return response.SerializeToString()

    return handle


def bidirectional(answer: StreamHandler) -> MethodHandler:
    """Register a coroutine that reads an iterator of bytes and writes bytes to its context."""

    async def handle(messages: AsyncIterator[bytes], context: Context) -> None:
        try:
            await answer(messages, context)
        except Exception as error:
            await _abort(context, as_request_error(error))

    return grpc.stream_stream_rpc_method_handler(handle)


def server_stream(
    request_type: Callable[[], MessageT], answer: Callable[[MessageT], AsyncIterator[Message]]
) -> MethodHandler:
    """Register a function from one parsed message to an iterator of messages."""

    async def handle(message: bytes, context: Context) -> None:
        try:
            async for response in answer(parse_message(request_type, message)):
                await context.write(response.SerializeToString())
        except Exception as error:
            await _abort(context, as_request_error(error))

    return grpc.unary_stream_rpc_method_handler(handle)


def generic_handler(service: str, methods: Mapping[str, MethodHandler]) -> grpc.GenericRpcHandler[Any, Any]:
    """Bind methods to the full name of their service, for `Server.add_generic_rpc_handlers`."""
    return grpc.method_handlers_generic_handler(service, dict(methods))


def refusing(code: grpc.StatusCode, details: str) -> MethodHandler:
    """Answer a call of any kind with a status: a stream of bytes fits them all, and waits for no message."""

    async def refuse(_messages: AsyncIterator[bytes], context: Context) -> None:
        await context.abort(code, details)

    return grpc.stream_stream_rpc_method_handler(refuse)


def parse_message(request_type: Callable[[], MessageT], message: bytes) -> MessageT:
    """Parse a message, or raise `InvalidArgument`: truncated, too deep, not UTF-8, wrong wire type."""
    request = request_type()
    try:
        request.ParseFromString(message)
    except DecodeError as error:
        name = request.DESCRIPTOR.full_name
        raise InvalidArgument(f"the {len(message)} bytes received are not a valid {name} message") from error
    return request


def as_request_error(error: Exception) -> RequestError:
    """Pass errors meant for the client on; log anything else and tell the client no details."""
    if isinstance(error, RequestError):
        return without_origin(error)
    logger.error("unexpected error while answering a request", exc_info=error)
    return Internal("the server failed to answer this request; its log has the details")


def status_details(error: RequestError) -> str:
    """The text that goes with the status, cut to what fits into gRPC metadata."""
    text = str(error)
    return text if len(text) <= MAX_DETAILS_CHARS else f"{text[:MAX_DETAILS_CHARS]}..."


def retry_metadata(error: RequestError) -> tuple[tuple[str, str], ...]:
    """When to try again, as gRPC's own retry policy reads it (gRFC A6)."""
    if not isinstance(error, Unavailable):
        return ()
    return (("grpc-retry-pushback-ms", str(max(1, round(error.retry_after_s * 1000)))),)


async def _abort(context: Context, error: RequestError) -> NoReturn:
    await context.abort(error.code, status_details(error), retry_metadata(error))
