from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from certificates import Identity, key_pem, make_authority, make_identity

from server.errors import ConfigError
from server.transport.tls import (
    TlsFiles,
    date_warning,
    exposure_warning,
    is_loopback,
    metrics_warning,
    server_credentials,
)


@pytest.fixture
def authority(tmp_path: Path) -> Identity:
    return make_authority(tmp_path, "authority")


@pytest.fixture
def identity(tmp_path: Path, authority: Identity) -> Identity:
    return make_identity(tmp_path, "server", authority)


@asynccontextmanager
async def echo_server(credentials: grpc.ServerCredentials) -> AsyncIterator[str]:
    async def echo(message: bytes, _context: object) -> bytes:
        return message

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def call(address: str, credentials: grpc.ChannelCredentials) -> bytes:
    async with grpc.aio.secure_channel(address, credentials) as channel:
        return await channel.unary_unary("/test.Echo/Echo")(b"x", timeout=10)


def trusting(authority: Identity, client: Identity | None = None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        authority.certificate_path.read_bytes(),
        client.key_path.read_bytes() if client else None,
        client.certificate_path.read_bytes() if client else None,
    )


async def test_tls(authority: Identity, identity: Identity) -> None:
    async with echo_server(
        server_credentials(TlsFiles(identity.certificate_path, identity.key_path))
    ) as address:
        assert await call(address, trusting(authority)) == b"x"
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Echo/Echo")(b"x", timeout=10)


async def test_mtls_accepts_only_clients_of_the_authority(
    tmp_path: Path, authority: Identity, identity: Identity
) -> None:
    files = TlsFiles(identity.certificate_path, identity.key_path, authority.certificate_path)
    client = make_identity(tmp_path, "client", authority)
    stranger = make_identity(tmp_path, "stranger", make_authority(tmp_path, "elsewhere"))
    async with echo_server(server_credentials(files)) as address:
        assert await call(address, trusting(authority, client)) == b"x"
        for refused in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(address, trusting(authority, refused))
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_files_that_cannot_be_read_are_named(tmp_path: Path, identity: Identity) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=r"--tls-cert .*missing.pem cannot be read"):
        server_credentials(TlsFiles(missing, identity.key_path))
    with pytest.raises(ConfigError, match=r"--tls-key .*missing.pem cannot be read"):
        server_credentials(TlsFiles(identity.certificate_path, missing))
    with pytest.raises(ConfigError, match=r"--tls-client-ca .*missing.pem cannot be read"):
        server_credentials(TlsFiles(identity.certificate_path, identity.key_path, missing))


def test_a_key_of_another_certificate_is_refused(
    tmp_path: Path, authority: Identity, identity: Identity
) -> None:
    other = make_identity(tmp_path, "other", authority)
    with pytest.raises(ConfigError, match="are not a PEM certificate and its unencrypted private key"):
        server_credentials(TlsFiles(identity.certificate_path, other.key_path))


def test_files_that_are_not_pem_are_refused(tmp_path: Path, identity: Identity) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(ConfigError, match="are not a PEM certificate"):
        server_credentials(TlsFiles(nonsense, identity.key_path))
    with pytest.raises(ConfigError, match="holds no PEM certificate"):
        server_credentials(TlsFiles(identity.certificate_path, identity.key_path, nonsense))


def test_an_encrypted_key_is_refused_and_not_asked_for(tmp_path: Path, identity: Identity) -> None:
    locked = tmp_path / "locked.key"
    locked.write_bytes(key_pem(identity.key, b"secret"))
    with pytest.raises(ConfigError, match="encrypted"):
        server_credentials(TlsFiles(identity.certificate_path, locked))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104
        ("[::]", False),
        ("::", False),
        ("192.0.2.1", False),
        ("gpu-box.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_exposure_is_warned_about() -> None:
    assert exposure_warning("127.0.0.1", tls=False, tokens=False) is None
    assert exposure_warning("192.0.2.1", tls=True, tokens=False) is None
    assert "anyone there may use" in str(exposure_warning("192.0.2.1", tls=False, tokens=False))
    assert "tokens travel unencrypted" in str(exposure_warning("192.0.2.1", tls=False, tokens=True))


def test_metrics_that_others_can_read_are_warned_about() -> None:
    assert metrics_warning("127.0.0.1") is None
    assert "anyone who reaches 192.0.2.1 may read the metrics" in str(metrics_warning("192.0.2.1"))


@pytest.mark.parametrize(
    ("ended_days_ago", "fault"), [(1, "certificate has expired"), (-9, "certificate is not yet valid")]
)
def test_a_certificate_that_clients_will_refuse_is_told(
    tmp_path: Path, authority: Identity, ended_days_ago: int, fault: str
) -> None:
    identity = make_identity(tmp_path, "late", authority, ended_days_ago)
    files = TlsFiles(identity.certificate_path, identity.key_path)
    assert date_warning(files) == f"--tls-cert {tmp_path}/late.pem: {fault}, clients will refuse it"


def test_a_certificate_of_today_is_not_worth_a_word(authority: Identity, identity: Identity) -> None:
    assert date_warning(TlsFiles(identity.certificate_path, identity.key_path)) is None
    assert date_warning(TlsFiles(authority.certificate_path, authority.key_path)) is None
