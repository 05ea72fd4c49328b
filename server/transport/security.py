"""Who may call what: bearer tokens, and the role that each RPC needs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import grpc

from server.errors import ConfigError, PermissionDenied, RequestError, Unauthenticated
from server.files import read_file
from server.transport.rpc import MethodHandler, refusing

MIN_TOKEN_CHARS = 16


class Role(IntEnum):
    """What a caller may do. A higher role includes the lower ones."""

    ANYONE = 0  # probes of load balancers and orchestrators, which carry no token
    CLIENT = 1  # asks about models and sends images
    OPERATOR = 2  # changes what is served and how


_INFERENCE = "inference.GRPCInferenceService"
_OPERATOR = "boulton.v1.OperatorService"

# Every RPC that the server registers. An RPC that is missing here needs the operator's token.
ROLE_NEEDED: Mapping[str, Role] = {
    "/grpc.health.v1.Health/Check": Role.ANYONE,
    "/grpc.health.v1.Health/Watch": Role.ANYONE,
    "/grpc.health.v1.Health/List": Role.ANYONE,
    f"/{_INFERENCE}/ServerLive": Role.ANYONE,
    f"/{_INFERENCE}/ServerReady": Role.ANYONE,
    f"/{_INFERENCE}/ModelReady": Role.CLIENT,
    f"/{_INFERENCE}/ServerMetadata": Role.CLIENT,
    f"/{_INFERENCE}/ModelMetadata": Role.CLIENT,
    f"/{_INFERENCE}/ModelConfig": Role.CLIENT,
    f"/{_INFERENCE}/ModelStatistics": Role.CLIENT,
    f"/{_INFERENCE}/ModelInfer": Role.CLIENT,
    f"/{_INFERENCE}/ModelStreamInfer": Role.CLIENT,
    f"/{_INFERENCE}/RepositoryIndex": Role.CLIENT,
    f"/{_INFERENCE}/RepositoryModelLoad": Role.OPERATOR,
    f"/{_INFERENCE}/RepositoryModelUnload": Role.OPERATOR,
    f"/{_INFERENCE}/SystemSharedMemoryStatus": Role.OPERATOR,
    f"/{_INFERENCE}/SystemSharedMemoryRegister": Role.OPERATOR,
    f"/{_INFERENCE}/SystemSharedMemoryUnregister": Role.OPERATOR,
    f"/{_INFERENCE}/CudaSharedMemoryStatus": Role.OPERATOR,
    f"/{_INFERENCE}/CudaSharedMemoryRegister": Role.OPERATOR,
    f"/{_INFERENCE}/CudaSharedMemoryUnregister": Role.OPERATOR,
    f"/{_INFERENCE}/TraceSetting": Role.OPERATOR,
    f"/{_INFERENCE}/LogSettings": Role.OPERATOR,
    f"/{_OPERATOR}/GetStatus": Role.OPERATOR,
    f"/{_OPERATOR}/GetTargets": Role.OPERATOR,
    f"/{_OPERATOR}/SetTargets": Role.OPERATOR,
    f"/{_OPERATOR}/WatchDecisions": Role.OPERATOR,
    f"/{_OPERATOR}/ListDecisions": Role.OPERATOR,
    f"/{_OPERATOR}/Pause": Role.OPERATOR,
    f"/{_OPERATOR}/Resume": Role.OPERATOR,
    f"/{_OPERATOR}/Pin": Role.OPERATOR,
    f"/{_OPERATOR}/Unpin": Role.OPERATOR,
    f"/{_OPERATOR}/ListLearned": Role.OPERATOR,
    f"/{_OPERATOR}/Forget": Role.OPERATOR,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.CLIENT,
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The accepted tokens, as digests, each with its role."""

    roles: tuple[tuple[bytes, Role], ...]

    def role_of(self, token: bytes) -> Role | None:
        """Return the token's role; None when it is unknown. Takes the same time whatever the guess."""
        presented = hashlib.sha256(token).digest()
        matches = [role for known, role in self.roles if hmac.compare_digest(known, presented)]
        return max(matches, default=None)


def parse_tokens(text: str, where: str) -> Tokens:
    """Read lines of `client TOKEN` or `operator TOKEN`; empty lines and lines starting with # are skipped.

    Raises:
        ConfigError: a line is malformed, or no token is given. The message never shows a token.
    """
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    lines = ((number, line) for number, line in lines if line and not line.startswith("#"))
    roles = [_parse_token(line, f"{where}, line {number}") for number, line in lines]
    if not roles:
        raise ConfigError(f"{where} holds no token; expected lines of `client TOKEN` or `operator TOKEN`")
    return Tokens(tuple(roles))


def load_tokens(path: Path, flag: str = "--token-file") -> Tokens:
    """Read a token file, see `parse_tokens`. Raises `ConfigError`."""
    try:
        return parse_tokens(read_file(path, flag).decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: a token file must be UTF-8 text") from error


def _parse_token(line: str, where: str) -> tuple[bytes, Role]:
    words = line.split()
    if len(words) != 2 or words[0] not in ("client", "operator"):
        raise ConfigError(f"{where}: expected `client TOKEN` or `operator TOKEN`")
    if len(words[1]) < MIN_TOKEN_CHARS or not (words[1].isascii() and words[1].isprintable()):
        raise ConfigError(f"{where}: a token must have at least {MIN_TOKEN_CHARS} characters, all ASCII")
    return hashlib.sha256(words[1].encode()).digest(), Role[words[0].upper()]


def check_access(tokens: Tokens, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raise unless the metadata's bearer token allows the method.

    Raises:
        Unauthenticated: no token, or one that is not known.
        PermissionDenied: the token's role is too low.
    """
    needed = ROLE_NEEDED.get(method, Role.OPERATOR)
    if needed is Role.ANYONE:
        return
    role = tokens.role_of(_bearer_token(metadata))
    if role is None:
        raise Unauthenticated("this token is not known to the server; ask its operator for one")
    if role < needed:
        raise PermissionDenied(
            f"{method} needs an {needed.name.lower()} token, got a {role.name.lower()} token"
        )


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    for key, value in metadata:
        if key == "authorization":
            text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
            scheme, _, token = text.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return token.strip()
            raise Unauthenticated("the authorization metadata must read 'Bearer TOKEN'")
    raise Unauthenticated("this server needs a token: send the metadata 'authorization: Bearer TOKEN'")


class Guard(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Handles the calls that their token does not allow, before any of their messages is read.

    To be registered first: calls that are allowed it leaves to those after it.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        """Return what answers with UNAUTHENTICATED or PERMISSION_DENIED; None lets the call pass."""
        try:
            check_access(self._tokens, handler_call_details.method, handler_call_details.invocation_metadata)
        except RequestError as error:
            return refusing(error.code, str(error))
        return None
