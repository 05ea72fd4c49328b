"""Where a client finds its server: address, TLS, token, the flags for them, and what went wrong there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.errors import BoultonError, ConfigError
from server.files import read_file
from server.transport.tls import check_authority, check_pair

DEFAULT_URL = "127.0.0.1:8001"
OPERATOR_URL = "127.0.0.1:8003"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Options = tuple[tuple[str, int], ...]
Metadata = tuple[tuple[str, str], ...]


class ServerUnreachable(BoultonError):
    """No server answers at the address."""


class ServerRefused(BoultonError):
    """The server answered a call with an error, or with something that cannot be used (`code` is None)."""

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """PEM contents: whom to trust and, for mTLS, who this client is."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address and how to talk to it. `token` is sent with every call."""

    target: str
    tls: TlsIdentity | None = None
    token: str | None = None

    @property
    def metadata(self) -> Metadata:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel; None without TLS."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(self.tls.ca, self.tls.key, self.tls.certificate)


def add_endpoint_arguments(parser: argparse.ArgumentParser, url: str = DEFAULT_URL) -> None:
    """Declare the flags that name a server, by default the one at `url`."""
    add = parser.add_argument
    add("--url", default=url, metavar="HOST:PORT", help=f"the server (default: {url})")
    add("--tls-ca", type=Path, metavar="FILE", help="PEM authority to trust: connect with TLS")
    add("--tls-cert", type=Path, metavar="FILE", help="PEM certificate of this client (mTLS)")
    add("--tls-key", type=Path, metavar="FILE", help="PEM private key of the certificate")
    add("--token-file", type=Path, metavar="FILE", help="a token, alone or as in the server's token file")


def endpoint_from(arguments: argparse.Namespace) -> Endpoint:
    """Read the files that the flags name. Raises `ConfigError`."""
    token = None if arguments.token_file is None else _token(arguments.token_file)
    return Endpoint(check_target(arguments.url), _tls(arguments), token)


def check_target(url: str) -> str:
    """Return `HOST:PORT` without a scheme in front. Raises `ConfigError` for anything else."""
    target = url.removeprefix("grpc://").removeprefix("http://").rstrip("/")
    host, _, port = target.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in target:
        raise ConfigError(f"--url must be HOST:PORT such as {DEFAULT_URL}, got {url!r}")
    return target


def _tls(arguments: argparse.Namespace) -> TlsIdentity | None:
    own = (arguments.tls_cert, arguments.tls_key)
    if (own[0] is None) != (own[1] is None) or (own[0] is not None and arguments.tls_ca is None):
        raise ConfigError("--tls-cert and --tls-key go together, and with --tls-ca")
    if arguments.tls_ca is None:
        return None
    ca = read_file(arguments.tls_ca, "--tls-ca")
    check_authority(arguments.tls_ca, "--tls-ca")
    if own[0] is None:
        return TlsIdentity(ca)
    identity = TlsIdentity(ca, read_file(own[0], "--tls-cert"), read_file(own[1], "--tls-key"))
    check_pair(*own)
    return identity


def _token(path: Path) -> str:
    """The last word of the first line that is not a comment: `TOKEN` or `client TOKEN`."""
    text = read_file(path, "--token-file").decode("ascii", "replace")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines or not lines[0][-1].isascii() or not lines[0][-1].isprintable():
        raise ConfigError(f"--token-file {path} holds no token; expected a line with one, in ASCII")
    return lines[0][-1]


def explain(error: grpc.RpcError | grpc.aio.AioRpcError, endpoint: Endpoint) -> BoultonError:
    """Turn a failed call into an error that says what to do."""
    code, details = error.code(), error.details() or ""
    if code is not grpc.StatusCode.UNAVAILABLE or not _is_connection(details):
        return ServerRefused(f"the server at {endpoint.target} answered {code.name}: {details}", code)
    remedy = _remedy(endpoint, details)
    return ServerUnreachable(f"no server answers at {endpoint.target}: {remedy} ({details})")


def _remedy(endpoint: Endpoint, details: str) -> str:
    """A server that asks for TLS, or for a certificate, hangs up on those who come without."""
    hung_up = "closed" in details.lower() or "reset" in details.lower()
    if endpoint.tls is None:
        remedy = "start one with `boulton serve --repository DIR`, or name another with --url HOST:PORT"
        return f"{remedy}; if it serves TLS, add --tls-ca" if hung_up else remedy
    remedy = "check the address, that it serves TLS, and --tls-ca"
    if not hung_up:
        return remedy
    if endpoint.tls.certificate is None:
        return f"{remedy}; if it asks for a certificate (mTLS), add --tls-cert and --tls-key"
    return f"{remedy}, and whether it trusts --tls-cert"


def _is_connection(details: str) -> bool:
    """Whether gRPC itself says that there is no connection, rather than a server that it is busy."""
    words = ("connect", "socket", "handshake", "resol", "goaway", "recvmsg")
    return any(word in details.lower() for word in words)
