"""What this package needs of gRPC's own binding to its C core: what gRPC's threaded server is built on.

The binding is not part of gRPC's documented interface. Where it has become another, `USABLE` is false, and
`grpc.aio` serves instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeAlias

import grpc

NEEDED = (
    "CompletionQueue",
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
)

Operation: TypeAlias = object
"""Something to do with a call. It holds what the core works on, so that each serves once."""
Metadata: TypeAlias = "tuple[tuple[str, str], ...]"
Tag: TypeAlias = "Callable[[Event], object]"
"""What is called, in the poller's thread, when something that was started is done."""


class CallDetails(Protocol):
    """What a client asks for, and until when, in seconds of the wall clock."""

    method: bytes
    deadline: float


class RawCall(Protocol):
    """The core's call."""

    def start_server_batch(self, operations: Sequence[Operation], tag: Tag) -> int:
        """Start operations; the tag is called when all are done. Returns 0, or what is wrong with them."""


class Event(Protocol):
    """What the core tells; the upper three are there when a call has come."""

    call: RawCall
    call_details: CallDetails
    invocation_metadata: Sequence[tuple[str, str | bytes]]
    batch_operations: Sequence[Any]
    completion_type: object
    success: bool
    tag: Tag


def _core() -> Any:  # noqa: ANN401  # no stubs know it
    try:
        return import_module("grpc._cython.cygrpc")
    except ImportError:
        return None


core = _core()
USABLE = all(hasattr(core, name) for name in NEEDED)


def start(call: RawCall, operations: Sequence[Operation], tag: Tag) -> None:
    """Start operations; the tag is called when all are done.

    Raises:
        TypeError, ValueError: an operation holds something else than it must.
        RuntimeError: the core does not take them, so that the tag will never be called.
    """
    if (error := call.start_server_batch(operations, tag)) != 0:
        names = ", ".join(type(operation).__name__ for operation in operations)
        raise RuntimeError(
            f"gRPC does not take {names} (its error {error}); "
            "await each write before the next, and send metadata of legal keys and values"
        )


def receive_close(call: RawCall, tag: Tag) -> None:
    """Be told when the call is over, see `was_cancelled`."""
    start(call, (core.ReceiveCloseOnServerOperation(0),), tag)


def was_cancelled(event: Event) -> bool:
    """Whether the client, its connection or its deadline ended the call."""
    return bool(event.batch_operations[0].cancelled())


def receive_message(call: RawCall, tag: Tag) -> None:
    """Be told when the next message has come, see `message_of`."""
    start(call, (core.ReceiveMessageOperation(0),), tag)


def succeeded(event: Event) -> bool:
    """Whether what was started was done, and the call goes on."""
    return event.success


def message_of(event: Event) -> bytes | None:
    """The message; None: there are no more, or it cannot be taken."""
    message: bytes | None = event.batch_operations[0].message()
    return message


def initial_metadata() -> Operation:
    """What comes before the first message."""
    return core.SendInitialMetadataOperation((), 0)


def message(content: bytes) -> Operation:
    """A message to send."""
    return core.SendMessageOperation(content, 0)


def status(code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> Operation:
    """What ends a call."""
    return core.SendStatusFromServerOperation(trailing, code.value[0], details.encode(), 0)
