"""What can go wrong, as a tree. Messages say what was given, what is allowed and what to do.

BoultonError
 |- ConfigError            a setting, file or flag is wrong
 |- ExportError            a model could not be turned into a repository entry
 |- RepositoryError        the model repository holds something unusable
 |- EngineError            an engine could not be made or failed while running
 |   '- CudaLost           nothing on the GPU will work any more in this process
 '- RequestError           a client's request is answered with a gRPC status
     |- InvalidArgument
     |- NotFound
     |- AlreadyExists
     |- Unimplemented
     |- Unavailable        with a hint when to retry
     |- DeadlineExceeded
     |- PermissionDenied
     |- Unauthenticated
     |- ResourceExhausted
     '- Internal
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import grpc

ErrorT = TypeVar("ErrorT", bound=BaseException)


class BoultonError(Exception):
    """Root of all errors that Boulton raises on purpose."""


class ConfigError(BoultonError):
    """A setting, a file or a flag is wrong."""


class ExportError(BoultonError):
    """A model could not be turned into a repository entry; names the operator or shape at fault."""


class RepositoryError(BoultonError):
    """The model repository holds something that cannot be served."""


class EngineError(BoultonError):
    """An engine could not be made, or failed while running a batch."""


class CudaLost(EngineError):
    """The GPU, or this process's context on it, failed for good: the process must end and be started anew."""


class _Status:
    """A gRPC status by its name. Whoever asks for it has gRPC; most commands do without and start sooner."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, error: object, kind: type | None = None) -> grpc.StatusCode:
        import grpc

        return grpc.StatusCode[self._name]


class RequestError(BoultonError):
    """A request that is answered with a gRPC status and a message for the client."""

    code = _Status("UNKNOWN")


class InvalidArgument(RequestError):
    """The request contradicts the protocol or the model's metadata."""

    code = _Status("INVALID_ARGUMENT")


class NotFound(RequestError):
    """The model, version or shared memory region does not exist."""

    code = _Status("NOT_FOUND")


class AlreadyExists(RequestError):
    """A shared memory region of that name is registered."""

    code = _Status("ALREADY_EXISTS")


class Unimplemented(RequestError):
    """The feature is not offered, or not enabled by the operator."""

    code = _Status("UNIMPLEMENTED")


class Unavailable(RequestError):
    """Nothing is wrong with the request: try again after `retry_after_s`."""

    code = _Status("UNAVAILABLE")

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """The deadline passed, or can no longer be met."""

    code = _Status("DEADLINE_EXCEEDED")


class PermissionDenied(RequestError):
    """The token does not allow this RPC."""

    code = _Status("PERMISSION_DENIED")


class Unauthenticated(RequestError):
    """No token, or an unknown one."""

    code = _Status("UNAUTHENTICATED")


class ResourceExhausted(RequestError):
    """A limit on sizes or counts was passed."""

    code = _Status("RESOURCE_EXHAUSTED")


class Internal(RequestError):
    """The server is at fault."""

    code = _Status("INTERNAL")


def without_origin(error: ErrorT) -> ErrorT:
    """Have an error forget where it was raised, and from what, once that is logged or nobody wants to know.

    The frames there hold the request, and it holds the error, when that is its answer. Such a circle keeps a
    message, or shared memory, until Python looks for garbage, which it does seldom.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
