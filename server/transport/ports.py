"""The daemon's ports, from its settings."""

from __future__ import annotations

from pathlib import Path

from server.config import OPERATOR_PORT, Settings
from server.transport.grpc_server import PortSettings
from server.transport.tls import TlsFiles

OPERATOR_MESSAGE_BYTES = 4 << 20


def client_port(settings: Settings) -> PortSettings:
    """Return the port of the clients."""
    return PortSettings(
        host=settings.host,
        port=settings.port,
        flags="--host and --port",
        max_message_bytes=settings.max_message_bytes,
        tls=_tls(settings, settings.tls_client_ca),
        token_file=settings.token_file,
    )


def operator_port(settings: Settings) -> PortSettings:
    """Return the port of the operator, guarded like that of the clients unless told otherwise."""
    port = settings.operator_port
    if port is None:
        port = OPERATOR_PORT if settings.port else 0
    return PortSettings(
        host=settings.operator_address,
        port=port,
        flags="--operator-address and --operator-port",
        max_message_bytes=OPERATOR_MESSAGE_BYTES,
        tls=_tls(settings, settings.operator_client_ca or settings.tls_client_ca),
        token_file=settings.operator_token_file or settings.token_file,
        token_flag="--operator-token-file" if settings.operator_token_file else "--token-file",
        client_ca_flag="--operator-client-ca" if settings.operator_client_ca else "--tls-client-ca",
    )


def _tls(settings: Settings, client_ca: Path | None) -> TlsFiles | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsFiles(settings.tls_cert, settings.tls_key, client_ca)
