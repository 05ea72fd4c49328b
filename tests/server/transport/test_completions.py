"""The server on the completion queue, over real sockets; `grpc.aio`'s must pass what both promise."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import grpc
import pytest

from server.transport import grpc_server
from server.transport.completions import binding
from server.transport.completions.call import Call
from server.transport.completions.server import CompletionServer
from server.transport.grpc_server import Server, new_server

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[object, object]"
Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

LIMIT_BYTES = 100_000
OPTIONS = (("grpc.max_receive_message_length", LIMIT_BYTES),)
MAKERS: dict[str, Callable[[], Server]] = {
    "completions": lambda: CompletionServer(OPTIONS),
    "aio": lambda: grpc.aio.server(options=OPTIONS),
}


class Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """One method of each kind, and some that misbehave; remembers what became of its calls."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_end = asyncio.Event()
        self.remaining_s: list[float | None] = []
        self.written = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        name = handler_call_details.method.removeprefix("/t.T/")
        return {
            "echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "join": grpc.stream_unary_rpc_method_handler(self.join),
            "each": grpc.stream_stream_rpc_method_handler(self.each),
            "writes": grpc.stream_stream_rpc_method_handler(self.writes),
            "flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "abort": grpc.unary_unary_rpc_method_handler(self.abort),
            "late": grpc.unary_stream_rpc_method_handler(self.late),
            "bug": grpc.unary_unary_rpc_method_handler(self.bug),
            "withdrawn": grpc.unary_unary_rpc_method_handler(self.withdrawn),
        }.get(name)

    async def echo(self, message: bytes, context: Context) -> bytes:
        self.remaining_s.append(context.time_remaining())
        return message

    async def count(self, message: bytes, _context: Context) -> AsyncIterator[bytes]:
        for number in range(int(message)):
            yield str(number).encode()

    async def join(self, messages: AsyncIterator[bytes], _context: Context) -> bytes:
        return b"".join([message async for message in messages])

    async def each(self, messages: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message * 2

    async def writes(self, messages: AsyncIterator[bytes], context: Context) -> None:
        async for message in messages:
            await context.write(message * 2)

    async def flood(self, message: bytes, context: Context) -> None:
        while True:
            await context.write(message)
            self.written += 1

    async def hang(self, message: bytes, _context: Context) -> bytes:
        self.entered.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return message

    async def abort(self, _message: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", (("hint", "look elsewhere"),))
        return b""

    async def late(self, _message: bytes, context: Context) -> None:
        await context.write(b"one")
        await context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")

    async def bug(self, _message: bytes, _context: Context) -> bytes:
        raise RuntimeError("secret")

    async def withdrawn(self, _message: bytes, _context: Context) -> bytes:
        raise asyncio.CancelledError


class Rig:
    """A server, what it runs, and a channel to it."""

    def __init__(self, server: Server, methods: Methods, channel: grpc.aio.Channel) -> None:
        self.server, self.methods, self.channel = server, methods, channel

    def unary(self, name: str) -> Unary:
        return self.channel.unary_unary(f"/t.T/{name}")


@pytest.fixture(params=MAKERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    server, methods = MAKERS[request.param](), Methods()
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Rig(server, methods, channel)
    await server.stop(0)


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def within(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 10)


async def test_every_kind_of_method(rig: Rig) -> None:
    channel = rig.channel
    assert await rig.unary("echo")(b"x") == b"x"
    assert await rig.unary("echo")(b"") == b""
    assert [one async for one in channel.unary_stream("/t.T/count")(b"3")] == [b"0", b"1", b"2"]
    assert await channel.stream_unary("/t.T/join")(iter((b"a", b"b"))) == b"ab"
    for name in ("each", "writes"):
        answers = channel.stream_stream(f"/t.T/{name}")(iter((b"a", b"b")))
        assert [one async for one in answers] == [b"aa", b"bb"]


async def test_streams_that_send_nothing(rig: Rig) -> None:
    assert [one async for one in rig.channel.unary_stream("/t.T/count")(b"0")] == []
    assert [one async for one in rig.channel.stream_stream("/t.T/writes")(iter(()))] == []
    assert await rig.channel.stream_unary("/t.T/join")(iter(())) == b""


async def test_many_calls_at_once(rig: Rig) -> None:
    messages = [str(number).encode() * 1000 for number in range(300)]
    assert await asyncio.gather(*map(rig.unary("echo"), messages)) == messages


async def test_an_unknown_method(rig: Rig) -> None:
    assert (await refused(rig.unary("nothing")(b""))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handler_that_aborts(rig: Rig) -> None:
    error = await refused(rig.unary("abort")(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
    assert ("hint", "look elsewhere") in tuple(error.trailing_metadata())


async def test_a_stream_that_aborts_late(rig: Rig) -> None:
    call = rig.channel.unary_stream("/t.T/late")(b"")
    assert await call.read() == b"one"
    error = await refused(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "the rest is lost")


async def test_a_message_that_is_too_large(rig: Rig) -> None:
    assert (await refused(rig.unary("echo")(bytes(LIMIT_BYTES + 1)))).code() is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    assert await rig.unary("echo")(bytes(LIMIT_BYTES)) == bytes(LIMIT_BYTES)


async def test_how_long_the_client_waits(rig: Rig) -> None:
    await rig.unary("echo")(b"")
    await rig.unary("echo")(b"", timeout=50)
    never, some = rig.methods.remaining_s
    assert never is None
    assert some is not None
    assert 30 < some < 51  # gRPC rounds it up


async def test_a_deadline_cancels_the_handler(rig: Rig) -> None:
    assert (await refused(rig.unary("hang")(b"", timeout=0.2))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await within(rig.methods.cancelled)


async def test_a_client_that_cancels(rig: Rig) -> None:
    call = rig.unary("hang")(b"")
    await within(rig.methods.entered)
    call.cancel()
    await within(rig.methods.cancelled)
    assert await rig.unary("echo")(b"x") == b"x"


async def test_a_client_that_is_gone(rig: Rig) -> None:
    call = rig.unary("hang")(b"")
    await within(rig.methods.entered)
    await rig.channel.close()
    await within(rig.methods.cancelled)
    assert call.done()


async def test_a_reader_that_does_not_read(rig: Rig) -> None:
    call = rig.channel.unary_stream("/t.T/flood")(bytes(50_000))
    assert await call.read() == bytes(50_000)
    before = -1
    while rig.methods.written != before:  # until nothing moves any more
        before = rig.methods.written
        await asyncio.sleep(0.3)
    assert before < 1000
    call.cancel()


async def test_an_error_tells_the_client_nothing_of_the_server(rig: Rig) -> None:
    if isinstance(rig.server, CompletionServer):  # grpc.aio tells the text, which is why handlers catch all
        error = await refused(rig.unary("bug")(b""))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(error.details())
    assert await rig.unary("echo")(b"x") == b"x"


async def test_a_handler_that_is_withdrawn_answers(rig: Rig) -> None:
    if isinstance(rig.server, CompletionServer):  # grpc.aio leaves the client waiting
        assert (await refused(rig.unary("withdrawn")(b""))).code() is grpc.StatusCode.CANCELLED


async def test_a_call_without_its_message(rig: Rig) -> None:
    call = rig.channel.stream_unary("/t.T/echo")(iter(()))
    if isinstance(rig.server, CompletionServer):  # grpc.aio leaves the client waiting
        assert (await refused(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_stopping_waits_for_open_calls(rig: Rig) -> None:
    call = rig.unary("hang")(b"x")
    await within(rig.methods.entered)
    stopping = asyncio.create_task(rig.server.stop(30))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    rig.methods.may_end.set()
    assert await call == b"x"
    await asyncio.wait_for(stopping, 10)


async def test_stopping_cancels_what_takes_too_long(rig: Rig) -> None:
    call = rig.unary("hang")(b"x")
    await within(rig.methods.entered)
    await asyncio.wait_for(rig.server.stop(0.1), 10)
    await within(rig.methods.cancelled)
    assert (await refused(call)).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    await rig.server.stop(0)


def calls_of(server: Server) -> list[Call]:
    """All that this process still knows of a server's calls."""
    calls = [found for found in gc.get_objects() if isinstance(found, Call)]
    return [call for call in calls if call._surroundings is server._around]


async def test_what_is_over_is_forgotten() -> None:
    server, methods = MAKERS["completions"](), Methods()
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.gather(*(channel.unary_unary("/t.T/echo")(b"x") for _ in range(100)))
        await refused(channel.unary_unary("/t.T/hang")(b"", timeout=0.1))
        await within(methods.cancelled)
    await server.stop(0)
    gc.collect()
    assert calls_of(server) == []


async def test_calls_cancelled_at_any_moment_leave_nothing_behind() -> None:
    server, methods = MAKERS["completions"](), Methods()
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def give_up(after_s: float) -> None:
        call = channel.unary_unary("/t.T/hang")(bytes(50_000))
        await asyncio.sleep(after_s)
        call.cancel()

    gc.collect()
    gc.disable()  # what only the collector finds, a server under load keeps for long
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.gather(*(give_up(number * 1e-4) for number in range(300)))
            async with asyncio.timeout(10):
                while calls_of(server):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    finally:
        gc.enable()
        await server.stop(0)


async def test_messages_of_a_stream_are_not_left_to_the_collector() -> None:
    server = MAKERS["completions"]()
    server.add_generic_rpc_handlers((Methods(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def messages() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x"

    gc.collect()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            answers = channel.stream_stream("/t.T/writes")(messages())
            assert [answer async for answer in answers] == [b"xx"] * 20
            async with asyncio.timeout(10):
                while known_events():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    finally:
        gc.enable()
        await server.stop(0)


def known_events() -> int:
    """How many events this process still knows that were waited for, by what they bring."""
    kind = binding.core.BatchOperationEvent
    return sum(type(found) is kind for found in gc.get_objects())


async def test_a_server_that_was_never_started_can_be_stopped() -> None:
    await CompletionServer(()).stop(1)


async def test_another_binding_of_grpc_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(new_server(), CompletionServer)
    monkeypatch.setattr(binding, "USABLE", False)
    assert isinstance(grpc_server.new_server(), grpc.aio.Server)
