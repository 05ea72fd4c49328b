from __future__ import annotations

import socket

import pytest

from server.front_ends.port import KeptPort
from server.transport.grpc_server import CannotListen, GrpcServer, PortSettings


def settings(host: str = "127.0.0.1", port: int = 0, *, shared: bool = False) -> PortSettings:
    return PortSettings(host, port, "--host and --port", 1 << 20, shared=shared)


def test_a_kept_port_is_for_those_who_share_it_alone() -> None:
    kept = KeptPort(settings())
    number = kept.settings.port
    assert number > 0
    with pytest.raises(CannotListen, match=f"127.0.0.1:{number}"):
        KeptPort(settings(port=number))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", number))
    kept.close()
    KeptPort(settings(port=number)).close()


def test_what_is_left_of_closed_connections_does_not_keep_a_port_from_being_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            accepted, _ = server.accept()
            accepted.close()  # first, so that its end of the connection lingers
            assert client.recv(1) == b""
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", number))
    KeptPort(settings(port=number)).close()


async def test_several_servers_may_listen_on_it() -> None:
    kept = KeptPort(settings())
    servers = [GrpcServer(kept.settings, {}) for _ in range(2)]
    assert {server.port for server in servers} == {kept.settings.port}
    for server in servers:
        await server.start()
    for server in servers:
        await server.stop(None)
    kept.close()


async def test_a_port_that_another_server_has_cannot_be_kept() -> None:
    server = GrpcServer(settings(), {})
    await server.start()
    with pytest.raises(CannotListen, match="--host and --port"):
        KeptPort(settings(port=server.port))
    await server.stop(None)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_this_machine_s_is_refused(host: str) -> None:
    with pytest.raises(CannotListen, match="not this machine's"):
        KeptPort(settings(host))
