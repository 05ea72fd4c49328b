"""TLS for the server's port: certificate, key and, for mTLS, the authority that signs clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.errors import ConfigError
from server.files import read_file
from server.transport.loopback import is_loopback


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca`, clients must show a certificate that it signed (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Read and check the files; return credentials for a port.

    Raises:
        ConfigError: a file is missing, is not PEM, or the key does not belong to the certificate.
    """
    certificate = read_file(files.certificate, "--tls-cert")
    key = read_file(files.key, "--tls-key")
    client_ca = read_file(files.client_ca, "--tls-client-ca") if files.client_ca else None
    _check_pair(files)
    _check_authority(files.client_ca)
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def _check_pair(files: TlsFiles) -> None:
    # gRPC reports a bad pair only to clients, as failed handshakes; OpenSSL says so at once.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert {files.certificate} and --tls-key {files.key} are not a PEM certificate and "
            f"its unencrypted private key: {error}"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; decrypt it first")


def _check_authority(client_ca: Path | None) -> None:
    if client_ca is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise ConfigError(f"--tls-client-ca {client_ca} holds no PEM certificate: {error}") from error


def exposure_warning(host: str, *, tls: bool, tokens: bool) -> str | None:
    """What an operator should know before binding to `host`; None when there is nothing to say."""
    if tls or is_loopback(host):
        return None
    reachable = f"{host} is reachable from other machines"
    if tokens:
        return f"{reachable} and tokens travel unencrypted: add --tls-cert and --tls-key"
    return f"{reachable} and anyone there may use this server: add --tls-cert, --tls-key and --token-file"
