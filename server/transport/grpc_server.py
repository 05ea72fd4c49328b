"""The gRPC server: what it registers, its limits, its port, its health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from server.errors import ConfigError
from server.transport.completions import binding
from server.transport.completions.server import CompletionServer
from server.transport.security import Guard, load_tokens
from server.transport.tls import TlsFiles, server_credentials

Handler: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"
Server: TypeAlias = CompletionServer | grpc.aio.Server
Options: TypeAlias = tuple[tuple[str, int], ...]

# Telling a health watcher that reads nothing must not hold up the shutdown.
HEALTH_TIMEOUT_S = 1.0

logger = logging.getLogger("boulton.grpc")


class CannotListen(ConfigError):
    """The port is taken, or the address is not this machine's."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What one port is like.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        flags: which flags change address and port, for messages.
        max_message_bytes: in and out.
        tls: PEM files; None serves without TLS.
        token_file: tokens that are accepted; None accepts everybody.
        shared: whether several processes listen on the port, each for a part of the clients.
        token_flag: which flag names the token file, for messages.
        client_ca_flag: likewise the authority of the clients.
    """

    host: str
    port: int
    flags: str
    max_message_bytes: int
    tls: TlsFiles | None = None
    token_file: Path | None = None
    shared: bool = False
    token_flag: str = "--token-file"  # noqa: S105 - the flag, not a token
    client_ca_flag: str = "--tls-client-ca"


class GrpcServer:
    """A gRPC server with health and reflection beside the given services. Make it inside the event loop.

    Args:
        settings: limits, address, TLS and tokens; their files are read here.
        services: handlers by the full names of their services.

    Raises:
        ConfigError: a file cannot be used, or the port cannot be bound.
    """

    def __init__(self, settings: PortSettings, services: Mapping[str, Handler]) -> None:
        self._server = new_server(_options(settings))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # unknown to the stubs
        self._names = ("", *services)
        if settings.token_file is not None:
            tokens = load_tokens(settings.token_file, settings.token_flag)
            self._server.add_generic_rpc_handlers((Guard(tokens),))
        register(self._server, services, self._health)
        self.port = _bind(self._server, settings)

    async def start(self) -> None:
        """Answer calls; health says not serving until it is told otherwise."""
        await self.set_serving(serving=False)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks and their watchers, for the server and each service."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                for name in self._names:
                    await self._health.set(name, status)
        except TimeoutError:
            logger.warning("a health watcher does not read; others may not know that serving is %s", serving)

    async def stop(self, grace_s: float) -> None:
        """Accept no calls any more; after `grace_s` those still open are cancelled. Safe to call twice."""
        await self._server.stop(grace_s)


def new_server(options: Options = ()) -> Server:
    """The server on the completion queue; gRPC's own where that cannot be used."""
    return CompletionServer(options) if binding.USABLE else grpc.aio.server(options=options)


def register(
    server: Server, services: Mapping[str, Handler], servicer: health_pb2_grpc.HealthServicer
) -> None:
    """Register the services, health and reflection; `security.ROLE_NEEDED` must know every RPC."""
    server.add_generic_rpc_handlers(tuple(services.values()))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    shown = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflecting = reflection.aio.ReflectionServicer(shown)  # type: ignore[attr-defined]  # unknown to the stubs
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)


def _options(settings: PortSettings) -> Options:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Unless it is wanted, two daemons on one port would each get half of the clients, silently.
        ("grpc.so_reuseport", int(settings.shared)),
    )


def address_of(settings: PortSettings) -> str:
    """Where it listens, as gRPC reads it."""
    return f"{bracketed(settings.host)}:{settings.port}"


def _bind(server: Server, settings: PortSettings) -> int:
    address = address_of(settings)
    try:
        if settings.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(settings.tls, settings.client_ca_flag))
    except (RuntimeError, UnicodeError) as error:
        raise cannot_listen(settings) from error
    if port == 0:
        raise cannot_listen(settings)
    return port


def cannot_listen(settings: PortSettings) -> CannotListen:
    """What to tell whoever asked for this port."""
    return CannotListen(
        f"cannot listen on {address_of(settings)}: the port is in use, or root's as those below "
        f"1024 are, or the address is not this machine's; choose others with {settings.flags} "
        "(0 takes a free port)"
    )


def bracketed(host: str) -> str:
    """Write an IPv6 address as it must stand before a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
