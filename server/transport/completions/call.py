"""One call: read, handled by a coroutine in the event loop, answered.

It is what handlers get as their context, and has of `grpc.aio.ServicerContext` what handlers here use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import grpc

from server.transport.completions import binding
from server.transport.completions.binding import Event, Metadata, Operation, Tag
from server.transport.completions.poller import Poller

T = TypeVar("T")

NEVER_S = 1e9
"""A deadline this far away is none: for calls without one the core tells the end of its clock."""

logger = logging.getLogger("boulton.grpc")


class Handler(Protocol):
    """What answers calls, as `grpc.RpcMethodHandler`; of the four functions one is there."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], Any] | None
    response_serializer: Callable[[Any], bytes] | None
    unary_unary: Callable[..., Any] | None
    unary_stream: Callable[..., Any] | None
    stream_unary: Callable[..., Any] | None
    stream_stream: Callable[..., Any] | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the calls of one server share.

    Args:
        poller: brings the core's events.
        running: the handlers at work; belongs to the event loop.
        closed: told in the poller's thread that a call is over.
    """

    poller: Poller
    running: set[asyncio.Task[None]]
    closed: Callable[[], None]


class Aborted(Exception):  # no error of this server
    """A handler ends its call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, str]]) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.trailing = tuple(trailing)


class Call:
    """A call that has come. Methods that begin with `_on` run in the poller's thread, all others in the loop.

    Args:
        event: what the core told of it.
        handler: answers it.
        surroundings: of its server.
    """

    __slots__ = ("_call", "_deadline_s", "_gone", "_handler", "_opened", "_surroundings", "_task")

    def __init__(self, event: Event, handler: Handler, surroundings: Surroundings) -> None:
        self._call = event.call
        self._deadline_s = event.call_details.deadline
        self._handler = handler
        self._surroundings = surroundings
        self._task: asyncio.Task[None] | None = None
        self._opened = False
        self._gone = False

    def begin(self) -> None:
        """Read what must be read before the handler runs, and have it run. In either thread."""
        binding.receive_close(self._call, self._on_close)
        if self._handler.request_streaming:
            self._surroundings.poller.post(self._handle, None)
        else:
            binding.receive_message(self._call, self._on_request)

    def time_remaining(self) -> float | None:
        """Seconds until the client gives up, at least 0; None: never."""
        left_s = self._deadline_s - time.time()
        return max(left_s, 0.0) if left_s < NEVER_S else None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """End the call with a status, by an exception that the handler must let pass."""
        raise Aborted(code, details, trailing_metadata)

    async def write(self, message: Any) -> None:  # noqa: ANN401  # what the handler's serializer takes
        """Send a message of a stream; waits until the client has room for it. Cancelled when it is gone.

        Raises TypeError in a method that answers once: what its handler returns is the answer.
        """
        if not self._handler.response_streaming:
            raise TypeError("this method answers once, with what its handler returns")
        content = binding.message(self._serialized(message))
        if not await self._awaited(lambda tag: self._start((content,), tag), binding.succeeded):
            raise asyncio.CancelledError

    def _on_request(self, event: Event) -> None:
        self._surroundings.poller.post(self._handle, binding.message_of(event))

    def _on_close(self, event: Event) -> None:
        if binding.was_cancelled(event):
            self._surroundings.poller.post(self._cancel, None)
        self._surroundings.closed()

    def _handle(self, message: bytes | None) -> None:
        """Begin with the handler; a request that could not be read comes as None."""
        if self._gone:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(message))
        self._surroundings.running.add(self._task)
        self._task.add_done_callback(self._over)

    def _cancel(self, _nothing: None) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self, message: bytes | None) -> None:
        try:
            await self._answer(message)
        except BaseException as error:  # whatever it is, the client must not wait for ever
            logger.exception("unexpected error while answering a call")
            self._refuse(grpc.StatusCode.INTERNAL, "the server failed to answer this call")
            if not isinstance(error, Exception):
                raise

    async def _answer(self, message: bytes | None) -> None:
        """Run the handler and end the call. Raises what the handler raises, or its answer causes."""
        try:
            self._end(await self._answered(message))
        except Aborted as wish:
            self._refuse(wish.code, wish.details, wish.trailing)
        except asyncio.CancelledError:
            self._refuse(grpc.StatusCode.CANCELLED, "the server has withdrawn this call")

    def _over(self, task: asyncio.Task[None]) -> None:
        """Let go of the task and its message. No part of the task does it: it may end before it began."""
        self._surroundings.running.discard(task)
        self._task = None

    async def _answered(self, message: bytes | None) -> bytes | None:
        """Run the handler; return what is left to send: the one answer of a call that streams none."""
        handler = self._handler
        request = self._messages() if handler.request_streaming else self._request(message)
        if (write_all := handler.stream_stream or handler.unary_stream) is not None:
            await self._write_all(write_all(request, self))
            return None
        answer_one = handler.unary_unary or handler.stream_unary
        return self._serialized(await answer_one(request, self)) if answer_one is not None else None

    async def _write_all(self, answers: AsyncIterator[Any] | Awaitable[None]) -> None:
        """Run a handler that yields what is to be written, or writes by itself."""
        if isinstance(answers, AsyncIterator):
            async for answer in answers:
                await self.write(answer)
        else:
            await answers

    def _serialized(self, answer: Any) -> bytes:  # noqa: ANN401  # what the handler's serializer takes
        write = self._handler.response_serializer
        content = answer if write is None else write(answer)
        if not isinstance(content, bytes):
            raise TypeError(f"a handler answered with {type(content).__name__}; gRPC sends bytes")
        return content

    def _request(self, message: bytes | None) -> Any:  # noqa: ANN401
        if message is None:
            raise Aborted(grpc.StatusCode.UNIMPLEMENTED, "this method needs exactly one message", ())
        read = self._handler.request_deserializer
        return message if read is None else read(message)

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self._next_message()) is not None:
            yield self._request(message)

    async def _next_message(self) -> bytes | None:
        return await self._awaited(lambda tag: binding.receive_message(self._call, tag), binding.message_of)

    def _end(self, answer: bytes | None) -> None:
        """Send what is left to send, if anything, and that all went well."""
        last = () if answer is None else (binding.message(answer),)
        self._send((*last, binding.status(grpc.StatusCode.OK)))

    def _refuse(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        self._send((binding.status(code, details, trailing),))

    def _send(self, operations: tuple[Operation, ...]) -> None:
        if not self._gone:
            self._start(operations, _ignore)

    def _start(self, operations: tuple[Operation, ...], tag: Tag) -> None:
        """Send something, after what must go before the first thing sent. Raises as `binding.start`."""
        if not self._opened:
            operations = (binding.initial_metadata(), *operations)
        binding.start(self._call, operations, tag)
        self._opened = True

    async def _awaited(self, start: Callable[[Tag], object], read: Callable[[Event], T]) -> T:
        """Start something, wait for its event, and return what is read of it.

        The future must not hold the event: it has the tag, which has the future, and a message.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: T) -> None:
            if not done.done():
                done.set_result(result)

        start(lambda event: self._surroundings.poller.post(settle, read(event)))
        return await done


def _ignore(_event: object) -> None:
    """Of what is sent last nothing more need be known: the call's close is told in any case."""
