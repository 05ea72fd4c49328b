"""Errors become statuses: with the right text, the right hint, and nothing that is nobody's business."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from server.errors import InvalidArgument, NotFound, RequestError, Unavailable
from server.transport.grpc_server import new_server
from server.transport.rpc import MAX_DETAILS_CHARS, Context, generic_handler, parse_message, unary

RAISED: dict[str, Exception] = {
    "NotFound": NotFound("no such thing"),
    "Long": NotFound("x" * 100_000),
    "Lines": NotFound("one\r\ntwo \N{SNOWMAN}"),
    "Later": Unavailable("busy", retry_after_s=0.25),
    "Bug": RuntimeError("secret: /etc/shadow"),
}


def raising(error: Exception) -> object:
    async def answer(_message: bytes, _context: Context) -> bytes:
        raise error

    return unary(answer)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = new_server()
    methods = {name: raising(error) for name, error in RAISED.items()}
    server.add_generic_rpc_handlers((generic_handler("test.Errors", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def error_of(channel: grpc.aio.Channel, method: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/test.Errors/{method}")(b"")
    return caught.value


async def test_the_status_and_the_text(channel: grpc.aio.Channel) -> None:
    error = await error_of(channel, "NotFound")
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    assert "grpc-retry-pushback-ms" not in dict(error.trailing_metadata())


async def test_a_long_text_does_not_hide_its_status(channel: grpc.aio.Channel) -> None:
    error = await error_of(channel, "Long")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "x" * MAX_DETAILS_CHARS + "..."


async def test_control_characters_stay_in_the_text(channel: grpc.aio.Channel) -> None:
    error = await error_of(channel, "Lines")
    assert error.details() == "one\r\ntwo \N{SNOWMAN}"


async def test_when_to_try_again(channel: grpc.aio.Channel) -> None:
    error = await error_of(channel, "Later")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


async def test_a_bug_is_logged_and_not_told(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    error = await error_of(channel, "Bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "secret" in caplog.text


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(InvalidArgument, match=r"not a valid inference\.ModelReadyRequest"):
        parse_message(pb.ModelReadyRequest, b"\x0a\xff")


def test_every_request_error_has_a_status_of_its_own() -> None:
    codes = [error.code for error in RequestError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert grpc.StatusCode.UNKNOWN not in codes
