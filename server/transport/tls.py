"""TLS for the server's port and for clients: certificate, key and the authority that signs the others."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.errors import ConfigError
from server.files import read_file
from server.transport.loopback import is_loopback

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL.
_OUT_OF_DATE = (9, 10)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca`, clients must show a certificate that it signed (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(files: TlsFiles, client_ca_flag: str = "--tls-client-ca") -> grpc.ServerCredentials:
    """Read and check the files; return credentials for a port.

    Raises:
        ConfigError: a file is missing, is not PEM, or the key does not belong to the certificate.
    """
    certificate = read_file(files.certificate, "--tls-cert")
    key = read_file(files.key, "--tls-key")
    client_ca = read_file(files.client_ca, client_ca_flag) if files.client_ca else None
    check_pair(files.certificate, files.key)
    if files.client_ca is not None:
        check_authority(files.client_ca, client_ca_flag)
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def check_pair(certificate: Path, key: Path) -> None:
    """Raise `ConfigError` unless they are a certificate and its key.

    gRPC reports a bad pair only as handshakes that fail; OpenSSL says so at once.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert {certificate} and --tls-key {key} are not a PEM certificate and "
            f"its unencrypted private key: {error}"
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; decrypt it first")


def check_authority(authority: Path, flag: str) -> None:
    """Raise `ConfigError`, which names the flag, unless the file holds a certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authority)
    except ssl.SSLError as error:
        raise ConfigError(f"{flag} {authority} holds no PEM certificate: {error}") from error


def date_warning(files: TlsFiles) -> str | None:
    """What is wrong with the dates of a certificate; None when clients will accept them."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # believe the certificate, whoever signed it
    client.load_verify_locations(files.certificate)
    try:
        _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OUT_OF_DATE:
            return f"--tls-cert {files.certificate}: {error.verify_message}, clients will refuse it"
    return None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Have a client in memory judge a server's certificate. Raises SSLCertVerificationError."""
    asked, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    judge = client.wrap_bio(answered, asked)
    judged = server.wrap_bio(asked, answered, server_side=True)
    for side in (judge, judged, judge):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()


def exposure_warning(host: str, *, tls: bool, tokens: bool) -> str | None:
    """What an operator should know before binding to `host`; None when there is nothing to say."""
    if tls or is_loopback(host):
        return None
    reachable = f"{host} is reachable from other machines"
    if tokens:
        return f"{reachable} and tokens travel unencrypted: add --tls-cert and --tls-key"
    return f"{reachable} and anyone there may use this server: add --tls-cert, --tls-key and --token-file"


def metrics_warning(host: str) -> str | None:
    """The same of the metrics' port, which has neither TLS nor tokens."""
    if is_loopback(host):
        return None
    return f"anyone who reaches {host} may read the metrics: let only scrapers through, or add --no-metrics"
