"""Errors on their way from the core to the client of a front end."""

from __future__ import annotations

import grpc

from server.errors import Internal, RequestError, Unavailable
from server.front_ends.frames import RefusalText
from server.transport.rpc import as_request_error, status_details

_KINDS = {kind.code.value[0]: kind for kind in RequestError.__subclasses__()}
_NO_HINT = -1.0


def refusal_of(error: Exception) -> RefusalText:
    """What a front end needs to know of an error; what is not meant for the client is logged here."""
    meant = as_request_error(error)
    retry_after_s = meant.retry_after_s if isinstance(meant, Unavailable) else _NO_HINT
    return RefusalText(meant.code.value[0], retry_after_s, status_details(meant))


def error_of(refusal: RefusalText) -> RequestError:
    """The same error again."""
    kind = _KINDS.get(refusal.code, Internal)
    if kind is Unavailable:
        return Unavailable(refusal.details, retry_after_s=max(0.0, refusal.retry_after_s))
    return kind(refusal.details)


CANCELLED = RefusalText(grpc.StatusCode.CANCELLED.value[0], _NO_HINT, "the call was cancelled")
