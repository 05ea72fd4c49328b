"""A server with the methods of `grpc.aio.Server` that are used here."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from server.transport.completions.binding import Event, core
from server.transport.completions.call import Call, Handler, Surroundings
from server.transport.completions.poller import Poller
from server.transport.rpc import refusing

CALLS_AWAITED = 32
"""How many calls the core may hand over before the next is asked for; more wait inside it."""

QUIET_S = 0.02
HOLDS = 5
"""Before a server shuts, it holds new calls back until none has come for so long, at most so many times."""
LAST_WORDS_S = 2.0
"""How long cancelled handlers may take to end before the server stops without them."""

logger = logging.getLogger("boulton.grpc")


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of a call before it is handled."""

    method: str
    invocation_metadata: Sequence[tuple[str, str | bytes]]


class CompletionServer:
    """Serves gRPC in the event loop that it is made in; the C core speaks HTTP/2 in threads of its own.

    Args:
        options: gRPC's channel arguments.
    """

    def __init__(self, options: Iterable[tuple[str, int]]) -> None:
        self._poller = Poller(asyncio.get_running_loop())
        self._server = core.Server([(name.encode(), value) for name, value in options], False)
        self._server.register_completion_queue(self._poller.queue)
        self._handlers: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._around = Surroundings(self._poller, set(), self._on_closed)
        self._open = 0  # calls; belongs to the poller's thread
        self._is_shut = False  # likewise
        self._stopped: asyncio.Future[None] | None = None
        self._holding = False
        self._held: deque[Call] = deque()

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Ask these for who handles a call, in their order."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Do nothing: generated code tells the same handlers twice."""

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS; return the port. Raises `RuntimeError`."""
        return int(self._server.add_http2_port(address.encode()))

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen with TLS; return the port. Raises `RuntimeError`."""
        return int(self._server.add_http2_port(address.encode(), credentials._credentials))  # type: ignore[attr-defined]  # noqa: SLF001  # as gRPC does

    async def start(self) -> None:
        """Answer calls."""
        self._listen()
        for _ in range(CALLS_AWAITED):
            self._await_call()

    async def stop(self, grace_s: float | None) -> None:
        """Accept no calls any more; after `grace_s` those still open are cancelled. Safe to call twice.

        With a grace, some 20 to 100 ms pass before it accepts none. Handlers that go on though they are
        cancelled are left behind after a while, and logged.
        """
        if self._stopped is None:  # the core lets go of the ports of no server that was never started
            self._listen()
        await self._shut(grace_s)
        await self._last_words()
        self._poller.join()
        self._server.destroy()

    def _listen(self) -> None:
        self._server.start()
        self._stopped = asyncio.get_running_loop().create_future()
        self._poller.start()

    async def _shut(self, grace_s: float | None) -> None:
        """Wait until all calls are over."""
        assert self._stopped is not None  # noqa: S101  # for the type checker
        try:
            if grace_s:
                await self._hold_back()
            self._server.shutdown(self._poller.queue, self._on_shut)
        finally:
            self._let_go()
        try:
            async with asyncio.timeout(grace_s or 0.0):
                await asyncio.shield(self._stopped)
        except TimeoutError:
            self._server.cancel_all_calls()
            await asyncio.shield(self._stopped)

    async def _hold_back(self) -> None:
        """Let new calls wait, so that clients which call again and again soon have none under way.

        The core ends with CANCELLED what comes between its shutdown and the client's hearing of it. What is
        held back is handled after that: its answer comes when the client knows.
        """
        self._holding = True
        for _ in range(HOLDS):
            before = len(self._held)
            await asyncio.sleep(QUIET_S)
            if len(self._held) == before:
                return

    def _let_go(self) -> None:
        self._holding = False
        self._begin_held()

    def _begin_held(self) -> None:
        with suppress(IndexError):  # no more; both threads take from it
            while True:
                self._held.popleft().begin()

    async def _last_words(self) -> None:
        if self._around.running:
            _, deaf = await asyncio.wait(self._around.running, timeout=LAST_WORDS_S)
            if deaf:
                logger.error("%d handlers go on %g s after they were cancelled", len(deaf), LAST_WORDS_S)

    def _await_call(self) -> None:
        self._server.request_call(self._poller.queue, self._poller.queue, self._on_call)

    def _on_call(self, event: Event) -> None:
        if not event.success:  # the server is shut
            return
        with suppress(ValueError):  # it has just been shut
            self._await_call()
        self._open += 1
        details = Details(event.call_details.method.decode(errors="replace"), event.invocation_metadata)
        self._begin(Call(event, self._handler_of(details), self._around))

    def _begin(self, call: Call) -> None:
        if not self._holding:
            call.begin()
            return
        self._held.append(call)
        if not self._holding:  # the loop may have looked before it was there
            self._begin_held()

    def _handler_of(self, details: Details) -> Handler:
        found = (handlers.service(details) for handlers in self._handlers)  # type: ignore[arg-type]  # a stand-in
        try:
            return next((handler for handler in found if handler is not None), _UNKNOWN)
        except Exception:
            logger.exception("unexpected error while choosing who answers a call")
            return _FAILED

    def _on_closed(self) -> None:
        self._open -= 1
        self._end_if_over()

    def _on_shut(self, _event: object) -> None:
        self._is_shut = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_shut and not self._open and self._stopped is not None:
            self._poller.end()
            self._poller.post(self._stopped.set_result, None)


_UNKNOWN = refusing(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
_FAILED = refusing(grpc.StatusCode.INTERNAL, "the server failed to answer this call")
