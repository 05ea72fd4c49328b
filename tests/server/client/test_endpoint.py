"""The flags that name a server, and what is said of connections that fail."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from certificates import Identity, make_authority, make_identity

from server.client.endpoint import Endpoint, TlsIdentity, add_endpoint_arguments, endpoint_from, explain
from server.errors import ConfigError
from server.transport.tls import TlsFiles, server_credentials


@pytest.fixture
def authority(tmp_path: Path) -> Identity:
    return make_authority(tmp_path, "authority")


@pytest.fixture
def client(tmp_path: Path, authority: Identity) -> Identity:
    return make_identity(tmp_path, "client", authority)


def endpoint(*words: str | Path) -> Endpoint:
    parser = argparse.ArgumentParser()
    add_endpoint_arguments(parser)
    return endpoint_from(parser.parse_args(list(map(str, words))))


def test_certificates_that_fit_are_taken(authority: Identity, client: Identity) -> None:
    own = ("--tls-cert", client.certificate_path, "--tls-key", client.key_path)
    found = endpoint("--tls-ca", authority.certificate_path, *own).tls
    assert found is not None
    assert found.certificate == client.certificate_path.read_bytes()


def test_an_authority_that_is_none_is_named(client: Identity) -> None:
    with pytest.raises(ConfigError, match=f"--tls-ca {client.key_path} holds no PEM certificate"):
        endpoint("--tls-ca", client.key_path)


def test_a_key_of_another_certificate_is_named(authority: Identity, client: Identity) -> None:
    own = ("--tls-cert", client.certificate_path, "--tls-key", authority.key_path)
    with pytest.raises(ConfigError, match=f"--tls-key {authority.key_path} are not"):
        endpoint("--tls-ca", authority.certificate_path, *own)


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, authority: Identity) -> AsyncIterator[str]:
    """The address of a server that asks for certificates of its own authority."""
    own = make_identity(tmp_path, "server", authority)
    server = grpc.aio.server()
    files = TlsFiles(own.certificate_path, own.key_path, authority.certificate_path)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def told(where: Endpoint) -> str:
    """What is said of a call that fails."""
    credentials = where.credentials
    channel = (
        grpc.aio.insecure_channel(where.target)
        if credentials is None
        else grpc.aio.secure_channel(where.target, credentials)
    )
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/test.Echo/Echo")(b"", timeout=10)
    return str(explain(failed.value, where))


async def test_who_speaks_plainly_to_tls_is_told_of_it(guarded: str) -> None:
    assert "if it serves TLS, add --tls-ca" in await told(Endpoint(guarded))


async def test_who_comes_without_a_certificate_is_told_of_it(guarded: str, authority: Identity) -> None:
    identity = TlsIdentity(authority.certificate_path.read_bytes())
    said = await told(Endpoint(guarded, identity))
    assert "if it asks for a certificate (mTLS), add --tls-cert and --tls-key" in said


async def test_who_comes_with_a_stranger_s_certificate_is_told_of_it(
    guarded: str, authority: Identity, tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path, "stranger")
    pem = (stranger.certificate_path.read_bytes(), stranger.key_path.read_bytes())
    said = await told(Endpoint(guarded, TlsIdentity(authority.certificate_path.read_bytes(), *pem)))
    assert "whether it trusts --tls-cert" in said
