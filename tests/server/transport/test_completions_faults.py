"""What handlers and clients do wrong to the server on the completion queue: it ends the call and goes on."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import pytest

from server.transport.completions import server as completions
from server.transport.completions.server import CompletionServer

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[object, object]"

UNARY, STREAM = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Unforeseen(BaseException):
    """No `Exception`."""


def fail(_anything: object) -> bytes:
    raise RuntimeError("secret")


class Faulty(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Methods that do what handlers must not."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.refused: set[asyncio.Future[None]] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        name = handler_call_details.method.removeprefix("/t.T/")
        if name == "service":
            raise RuntimeError("secret")
        return {
            "echo": UNARY(self.echo),
            "request": UNARY(self.echo, request_deserializer=fail),
            "response": UNARY(self.echo, response_serializer=fail),
            "written": STREAM(self.write, response_serializer=fail),
            "twice": UNARY(self.write_too),
            "text": UNARY(self.echo, response_serializer=bytes.decode),
            "nothing": UNARY(self.nothing),
            "number": UNARY(self.number),
            "details": UNARY(self.details),
            "surrogate": UNARY(self.surrogate),
            "code": UNARY(self.code),
            "metadata": UNARY(self.metadata),
            "base": UNARY(self.base),
            "closing": UNARY(self.closing),
            "at_once": STREAM(self.at_once),
            "hang": UNARY(self.hang),
            "deaf": UNARY(self.deaf),
        }.get(name)

    async def echo(self, message: bytes, _context: Context) -> bytes:
        return message

    async def write(self, message: bytes, context: Context) -> None:
        await context.write(message)

    async def write_too(self, message: bytes, context: Context) -> bytes:
        await context.write(message)
        return message

    async def nothing(self, _message: bytes, _context: Context) -> None:
        pass

    async def number(self, _message: bytes, _context: Context) -> int:
        return 5

    async def details(self, _message: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, None)  # type: ignore[arg-type]

    async def surrogate(self, _message: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "\udc80")

    async def code(self, _message: bytes, context: Context) -> None:
        await context.abort(5, "")  # type: ignore[arg-type]

    async def metadata(self, _message: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "", (("key", 5),))  # type: ignore[arg-type]

    async def base(self, _message: bytes, _context: Context) -> None:
        raise Unforeseen

    async def closing(self, _message: bytes, _context: Context) -> None:
        raise GeneratorExit

    async def at_once(self, _message: bytes, context: Context) -> None:
        writes = [asyncio.ensure_future(context.write(bytes(3_000_000))) for _ in range(12)]
        self.refused, _ = await asyncio.wait(writes, return_when=asyncio.FIRST_EXCEPTION)
        self.entered.set()
        await context.abort(grpc.StatusCode.ABORTED)

    async def hang(self, _message: bytes, _context: Context) -> None:
        self.entered.set()
        await asyncio.Event().wait()

    async def deaf(self, _message: bytes, _context: Context) -> None:
        while True:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.entered.is_set():
                    raise
                self.entered.clear()


class Rig:
    """A server with faulty methods, and its address."""

    def __init__(self) -> None:
        self.methods = Faulty()
        self.server = CompletionServer(())
        self.server.add_generic_rpc_handlers((self.methods,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    async def is_well(self) -> bool:
        async with grpc.aio.insecure_channel(self.address) as channel:
            return await channel.unary_unary("/t.T/echo")(b"x", timeout=10) == b"x"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.server.start()
    yield rig
    await asyncio.wait_for(rig.server.stop(0), 10)


async def status_of(address: str, name: str) -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/t.T/{name}")(b"x", timeout=10)
        assert "secret" not in str(caught.value.details())
        return caught.value.code()


@pytest.mark.parametrize(
    "name",
    [
        *("service", "request", "response", "written", "twice", "text", "nothing", "number"),
        *("details", "surrogate", "code", "metadata", "base", "closing"),
    ],
)
async def test_a_handler_that_fails_ends_its_call(rig: Rig, name: str) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _what: None)
    assert await status_of(rig.address, name) is grpc.StatusCode.INTERNAL
    assert await rig.is_well()


async def test_more_writes_at_once_than_the_core_takes(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        call = channel.unary_stream("/t.T/at_once")(b"", timeout=30)
        await asyncio.wait_for(rig.methods.entered.wait(), 10)  # nothing is read meanwhile
        with pytest.raises(grpc.aio.AioRpcError, match="ABORTED"):
            _ = [message async for message in call]
    assert any("await each write" in str(write.exception()) for write in rig.methods.refused)


def headers(path: bytes) -> bytes:
    """The frame that begins stream 1, with nothing compressed."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x"}
    fields |= {b"content-type": b"application/grpc", b"te": b"trailers"}
    block = b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields.items()
    )
    return len(block).to_bytes(3, "big") + b"\x01\x04" + (1).to_bytes(4, "big") + block


async def test_a_method_that_is_no_text(rig: Rig) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", rig.port), timeout=10) as client:
            client.sendall(PREFACE + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + headers(b"/t.T/\xff\xfe"))
            got = b""
            while b"grpc-status" not in got:
                got += client.recv(65536) or pytest.fail("the server hung up")
            return got

    assert b"12" in (await asyncio.to_thread(ask)).partition(b"grpc-status")[2]
    assert await rig.is_well()


async def test_a_handler_that_is_deaf_to_its_cancellation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(completions, "LAST_WORDS_S", 0.1)
    rig = Rig()
    await rig.server.start()
    async with grpc.aio.insecure_channel(rig.address) as channel:
        call = channel.unary_unary("/t.T/deaf")(b"")
        await rig.methods.entered.wait()
        await asyncio.wait_for(rig.server.stop(0), 10)
        assert await call.code() is not grpc.StatusCode.OK
    assert "1 handlers go on" in caplog.text
    rig.methods.entered.clear()
    for task in rig.server._around.running:
        task.cancel()


async def test_a_server_that_was_never_started_lets_go_of_its_port() -> None:
    rig = Rig()
    await rig.server.stop(None)
    with socket.create_server(("127.0.0.1", rig.port)):
        pass


async def test_stopping_twice_at_once() -> None:
    rig = Rig()
    await rig.server.start()
    async with grpc.aio.insecure_channel(rig.address) as channel:
        call = channel.unary_unary("/t.T/hang")(b"")
        await rig.methods.entered.wait()
        await asyncio.wait_for(asyncio.gather(*(rig.server.stop(grace_s) for grace_s in (30, None, 0))), 10)
        assert await call.code() is not grpc.StatusCode.OK
    await rig.server.stop(None)


@pytest.fixture
async def slow_to_stop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A server that holds new calls back for half a second and more before it shuts."""
    monkeypatch.setattr(completions, "QUIET_S", 0.5)
    return rig


async def test_what_comes_while_the_server_begins_to_stop_is_answered(slow_to_stop: Rig) -> None:
    rig = slow_to_stop
    async with grpc.aio.insecure_channel(rig.address) as channel:
        echo = channel.unary_unary("/t.T/echo")
        assert await echo(b"x") == b"x"
        stopping = asyncio.create_task(rig.server.stop(10))
        await asyncio.sleep(0)
        assert await asyncio.gather(*(echo(b"x", timeout=10) for _ in range(50))) == [b"x"] * 50
        await asyncio.wait_for(stopping, 10)


async def test_an_impatient_stop_lets_go_of_what_a_patient_one_holds_back(slow_to_stop: Rig) -> None:
    rig = slow_to_stop
    async with grpc.aio.insecure_channel(rig.address) as channel:
        patient = asyncio.create_task(rig.server.stop(10))
        call = channel.unary_unary("/t.T/hang")(b"")
        while not rig.server._held:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.gather(patient, rig.server.stop(0)), 10)
        assert await call.code() is not grpc.StatusCode.OK
    assert not rig.server._held


async def test_a_server_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    rig = Rig()
    await rig.server.start()
    await rig.server.stop(None)
    assert not set(threading.enumerate()) - before
