"""A bare echo server: a constant answer to every request, no parsing, no batching. The price of gRPC itself.

Two forms, `aio` and `sync`, as gRPC offers them in Python, and `completions`, the server that Boulton has of
its own. With `--tuned` the process is prepared as Boulton prepares its own (uvloop, freed pages kept); that
is printed beside the bare one. With `--processes` several of them share one port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import TypeAlias

import grpc
import uvloop

from bench.serving.messages import INFER
from server.memory import keep_pages
from server.transport.completions.server import CompletionServer

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

ANSWER = b"\0" * 64
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SYNC_THREADS = 32
HOST = "127.0.0.1"


class _Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handler if handler_call_details.method == INFER else None


@dataclass(frozen=True, slots=True)
class Echo:
    """What one process serves: its form, whether it is tuned, and its port; 0: a free one."""

    form: str
    tuned: bool
    port: int = 0


def serve_sync(port: int, ready: Callable[[int], None]) -> None:
    """Serve with gRPC's threaded server until SIGTERM."""
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: ANSWER)
    server = grpc.server(futures.ThreadPoolExecutor(SYNC_THREADS), [_Everything(handler)], options=OPTIONS)
    port = server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    ready(port)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    server.stop(None).wait()


async def serve_asyncio(echo: Echo, ready: Callable[[int], None]) -> None:
    """Serve with gRPC's asyncio server, or with Boulton's, until SIGTERM."""

    async def answer(_request: bytes, _context: object) -> bytes:
        return ANSWER

    server = CompletionServer(OPTIONS) if echo.form == "completions" else grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Everything(grpc.unary_unary_rpc_method_handler(answer)),))
    port = server.add_insecure_port(f"{HOST}:{echo.port}")
    await server.start()
    ready(port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(None)


def serve(echo: Echo, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM; `ready` is told the port."""
    if echo.tuned:
        keep_pages()
    if echo.form == "sync":
        serve_sync(echo.port, ready)
        return
    new_loop = uvloop.new_event_loop if echo.tuned else None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_asyncio(echo, ready))


def serve_together(echo: Echo, processes: int, ready: Callable[[int], None]) -> None:
    """Serve in several processes that share a free port; they end with this one."""
    spawning = multiprocessing.get_context("spawn")
    all_listen = spawning.Barrier(processes)
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((HOST, 0))
        echo = replace(echo, port=kept.getsockname()[1])
        for _ in range(processes - 1):
            spawning.Process(target=_serve_another, args=(echo, all_listen), daemon=True).start()
        serve(echo, lambda port: _ready_together(all_listen, ready, port))


def _serve_another(echo: Echo, all_listen: Barrier) -> None:
    serve(echo, lambda port: _ready_together(all_listen, _nobody, port))


def _ready_together(all_listen: Barrier, ready: Callable[[int], None], port: int) -> None:
    all_listen.wait()
    ready(port)


def _nobody(_port: int) -> None:
    """Hear of a port that somebody else tells."""


def main() -> None:
    """Run one form until SIGTERM; write the port into the ready file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=("aio", "sync", "completions"))
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ready-file", type=Path, required=True)
    arguments = parser.parse_args()

    def ready(port: int) -> None:
        partial = arguments.ready_file.with_suffix(".partial")
        partial.write_text(json.dumps({"grpc_port": port, "pid": os.getpid()}), encoding="utf-8")
        partial.replace(arguments.ready_file)

    echo = Echo(arguments.form, arguments.tuned)
    if arguments.processes > 1:
        serve_together(echo, arguments.processes, ready)
    else:
        serve(echo, ready)


if __name__ == "__main__":
    main()
