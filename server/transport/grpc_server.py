"""The gRPC server: what it registers, its limits, its port, its health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server.config import Settings
from server.errors import ConfigError
from server.transport.security import TokenInterceptor, load_tokens
from server.transport.tls import TlsFiles, server_credentials

Handler: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"

# Telling a health watcher that reads nothing must not hold up the shutdown.
HEALTH_TIMEOUT_S = 1.0

logger = logging.getLogger("boulton.grpc")


class GrpcServer:
    """A gRPC server with health and reflection beside the given services. Make it inside the event loop.

    Args:
        settings: limits, address, TLS and tokens; their files are read here.
        services: handlers by the full names of their services.

    Raises:
        ConfigError: a file cannot be used, or the port cannot be bound.
    """

    def __init__(self, settings: Settings, services: Mapping[str, Handler]) -> None:
        self._server = grpc.aio.server(interceptors=_interceptors(settings), options=_options(settings))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # unknown to the stubs
        self._names = ("", *services)
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


def register(
    server: grpc.aio.Server, services: Mapping[str, Handler], servicer: health_pb2_grpc.HealthServicer
) -> None:
    """Register the services, health and reflection; `security.ROLE_NEEDED` must know every RPC."""
    server.add_generic_rpc_handlers(tuple(services.values()))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    shown = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(shown, server)


def _options(settings: Settings) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),  # two daemons on one port would each get half of the clients, silently
    )


def _interceptors(settings: Settings) -> tuple[TokenInterceptor, ...]:
    return (TokenInterceptor(load_tokens(settings.token_file)),) if settings.token_file else ()


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address = f"{bracketed(settings.host)}:{settings.port}"
    try:
        if settings.tls_cert is None or settings.tls_key is None:
            port = server.add_insecure_port(address)
        else:
            files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
            port = server.add_secure_port(address, server_credentials(files))
    except RuntimeError as error:
        raise _cannot_listen(address) from error
    if port == 0:
        raise _cannot_listen(address)
    return port


def _cannot_listen(address: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {address}: the port is in use, or the address is not this machine's; "
        "choose others with --host and --port (0 takes a free port)"
    )


def bracketed(host: str) -> str:
    """Write an IPv6 address as it must stand before a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
