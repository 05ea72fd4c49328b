"""The process of one front end: gRPC on one side, the core on the other."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from server.errors import ConfigError
from server.event_loop import run
from server.front_ends.arena import open_arena
from server.front_ends.core import Core, StreamedCore
from server.front_ends.frames import METHODS, NO_CALL, SERVICE_NAME, Frame, Kind, pack, unpack_number
from server.front_ends.link import Link
from server.logs import configure_logging
from server.memory import keep_pages, spare_collector
from server.processor import prefer_throughput
from server.transport.grpc_server import GrpcServer, PortSettings
from server.transport.ordered_stream import OrderedStream
from server.transport.rpc import Caller, MethodHandler, UnaryHandler, bidirectional, generic_handler, unary
from server.transport.tls import TlsFiles

EXIT_CORE_GONE = 1
TRIM_EVERY_S = 10.0

logger = logging.getLogger("boulton.front_end")


@dataclass(frozen=True, slots=True)
class FrontEndSettings:
    """What a front end must be told."""

    port: PortSettings
    log_format: str
    log_level: str

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> FrontEndSettings:
        """Read what `to_json` wrote."""
        read = json.loads(text)
        port: dict[str, Any] = read["port"]
        tls, tokens = port["tls"], port["token_file"]
        files = TlsFiles(**{name: path and Path(path) for name, path in tls.items()}) if tls else None
        port = port | {"tls": files, "token_file": tokens and Path(tokens)}
        return cls(PortSettings(**port), read["log_format"], read["log_level"])


class FrontEnd:
    """Answers clients with what the core says. Made and used inside one event loop.

    Args:
        settings: where it listens.
        arena: what is shared with the core.
    """

    def __init__(self, settings: PortSettings, arena: memoryview) -> None:
        self._stopped = asyncio.get_running_loop().create_future()
        self._link = Link(self._receive, self._core_gone)
        self._core = Core(self._link.send, arena)
        self._settings = settings
        self._server: GrpcServer | None = None
        self._busy: set[asyncio.Task[None]] = set()

    async def serve(self, core: socket.socket) -> None:
        """Answer clients until the core says stop."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._link, core)
        try:
            self._server = GrpcServer(self._settings, {SERVICE_NAME: handler(self._core)})
        except ConfigError as error:
            self._link.send(pack(Kind.FAILED, NO_CALL, str(error).encode()))
            self._link.close()
            return
        await self._server.start()
        self._link.send(pack(Kind.READY))
        spare_collector()
        trimming = asyncio.create_task(self._trim())
        await self._server.stop(await self._stopped)
        trimming.cancel()
        self._link.close()

    def _receive(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.call != NO_CALL:
                self._core.receive(frame)
            elif frame.kind == Kind.SERVING:
                self._tell(serving=bool(unpack_number(frame.body)))
            elif frame.kind == Kind.STOP and not self._stopped.done():
                self._stopped.set_result(unpack_number(frame.body))

    def _tell(self, *, serving: bool) -> None:
        if self._server is not None:
            task = asyncio.get_running_loop().create_task(self._say(self._server, serving=serving))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _say(self, server: GrpcServer, *, serving: bool) -> None:
        await server.set_serving(serving=serving)
        self._link.send(pack(Kind.SAID))

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            self._core.trim()

    def _core_gone(self) -> None:
        """End at once: clients then turn to a server that works."""
        if not self._stopped.done():
            os._exit(EXIT_CORE_GONE)


def handler(core: Core) -> grpc.GenericRpcHandler[Any, Any]:
    """The protocol's methods, answered by the core."""
    methods: dict[str, MethodHandler] = {name: unary(_asking(core, name)) for name in METHODS}
    methods["ModelStreamInfer"] = bidirectional(OrderedStream(StreamedCore(core)).answer)
    return generic_handler(SERVICE_NAME, methods)


def _asking(core: Core, name: str) -> UnaryHandler:
    method = METHODS.index(name)

    async def ask(message: bytes, caller: Caller) -> bytes:
        return await core.ask(method, message, caller)

    return ask


def main() -> None:
    """Run a front end; the daemon starts it, nobody else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--arena", type=int, required=True)
    parser.add_argument("--settings", required=True)
    arguments = parser.parse_args()
    settings = FrontEndSettings.from_json(arguments.settings)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they reach the core, too, which knows what to do
    keep_pages()
    prefer_throughput()
    configure_logging(settings.log_format, settings.log_level)
    run(_serve(settings, open_arena(arguments.arena), socket.socket(fileno=arguments.link)))


async def _serve(settings: FrontEndSettings, arena: memoryview, core: socket.socket) -> None:
    await FrontEnd(settings.port, arena).serve(core)


if __name__ == "__main__":
    main()
