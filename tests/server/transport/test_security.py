from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from server.errors import ConfigError, PermissionDenied, Unauthenticated
from server.transport.grpc_server import new_server
from server.transport.security import (
    ROLE_NEEDED,
    Guard,
    Role,
    check_access,
    load_tokens,
    parse_tokens,
)

CLIENT = "client-token-0123456789"
OPERATOR = "operator-token-0123456789"
TOKENS = parse_tokens(f"# who\nclient {CLIENT}\n\n  operator {OPERATOR}  \n", "tokens")

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
LIVE = "/inference.GRPCInferenceService/ServerLive"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("user-agent", "test"), ("authorization", f"Bearer {token}"))


def test_each_token_has_its_role() -> None:
    assert TOKENS.role_of(CLIENT.encode()) is Role.CLIENT
    assert TOKENS.role_of(OPERATOR.encode()) is Role.OPERATOR
    assert TOKENS.role_of(CLIENT[:-1].encode()) is None
    assert TOKENS.role_of(b"") is None


def test_a_token_with_both_roles_has_the_higher_one() -> None:
    both = parse_tokens(f"client {CLIENT}\noperator {CLIENT}\n", "tokens")
    assert both.role_of(CLIENT.encode()) is Role.OPERATOR


def test_tokens_are_not_kept_in_the_clear() -> None:
    assert CLIENT not in repr(TOKENS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no token"),
        ("# only a comment\n", "holds no token"),
        ("client\n", "line 1: expected"),
        ("\nadmin 0123456789abcdef\n", "line 2: expected"),
        ("client 0123456789abcdef extra\n", "line 1: expected"),
        ("client short\n", "at least 16 characters"),
        ("client ümlaut-0123456789\n", "all ASCII"),
    ],
)
def test_wrong_token_files_are_refused_without_showing_tokens(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_tokens(text, "tokens.txt")
    assert message in str(refused.value)
    assert "0123456789" not in str(refused.value)


def test_a_token_file_is_read_from_disk(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    with pytest.raises(ConfigError, match=r"--token-file .* cannot be read"):
        load_tokens(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_tokens(file)
    file.write_text(f"client {CLIENT}")
    assert load_tokens(file).role_of(CLIENT.encode()) is Role.CLIENT


def test_access_by_role() -> None:
    check_access(TOKENS, LIVE, ())
    check_access(TOKENS, INFER, bearer(CLIENT))
    check_access(TOKENS, INFER, bearer(OPERATOR))
    check_access(TOKENS, LOAD, bearer(OPERATOR))
    with pytest.raises(PermissionDenied, match="needs an operator token, got a client token"):
        check_access(TOKENS, LOAD, bearer(CLIENT))


def test_an_unknown_rpc_needs_the_operator() -> None:
    with pytest.raises(PermissionDenied):
        check_access(TOKENS, "/inference.GRPCInferenceService/Forgotten", bearer(CLIENT))


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", CLIENT),),
        (("authorization", "Bearer "),),
        (("authorization", f"Basic {CLIENT}"),),
        (("authorization", f"Bearer {CLIENT}x"),),
        (("authorization", "Bearer \udcff"),),
        (("authorization", "Bearer x"), ("authorization", f"Bearer {CLIENT}")),
        (("x-authorization", f"Bearer {CLIENT}"),),
    ],
)
def test_whatever_is_not_a_known_bearer_token_is_unauthenticated(
    metadata: tuple[tuple[str, str], ...],
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        check_access(TOKENS, INFER, metadata)
    assert CLIENT not in str(refused.value)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    check_access(TOKENS, INFER, (("authorization", f"{scheme} {CLIENT}"),))


def test_only_probes_need_no_token() -> None:
    open_to_all = {method for method, role in ROLE_NEEDED.items() if role is Role.ANYONE}
    assert {method.rpartition("/")[2] for method in open_to_all} == {
        *("Check", "Watch", "List", "ServerLive", "ServerReady")
    }


class Echo(grpc.GenericRpcHandler):
    """Answers every unary call and stream with what came."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def unary(message: bytes, _context: object) -> bytes:
            return message

        async def stream(messages: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
            async for message in messages:
                yield message

        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@asynccontextmanager
async def guarded_channel() -> AsyncIterator[grpc.aio.Channel]:
    server = new_server()
    server.add_generic_rpc_handlers((Guard(TOKENS), Echo()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_calls_over_the_wire() -> None:
    async with guarded_channel() as channel:
        assert await channel.unary_unary(INFER)(b"x", metadata=bearer(CLIENT)) == b"x"
        assert await channel.unary_unary(LIVE)(b"x") == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(INFER)(b"x")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(LOAD)(b"x", metadata=bearer(CLIENT))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_is_refused_before_its_first_message() -> None:
    async with guarded_channel() as channel:
        call = channel.stream_stream(STREAM)()
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        allowed = channel.stream_stream(STREAM)(metadata=bearer(CLIENT))
        await allowed.write(b"y")
        assert await allowed.read() == b"y"
        allowed.cancel()
