"""The front ends of one daemon: started, told what to say of its health, replaced when they die, stopped."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from server.errors import BoultonError, ConfigError
from server.front_ends.desk import Desk
from server.front_ends.frames import Frame, Kind, pack_number, unpack_ready
from server.front_ends.link import Link
from server.front_ends.port import KeptPort
from server.front_ends.process import TRIAL, FrontEndSettings
from server.inference.service import InferenceService
from server.transport.grpc_server import PortSettings
from server.wire.outside_memory import read_process

MODULE = "server.front_ends.process"
START_TIMEOUT_S = 60.0
STOP_EXTRA_S = 5.0
SOONEST_RESTART_S, LATEST_RESTART_S = 0.1, 5.0

logger = logging.getLogger("boulton.front_ends")


class FrontEndProcess:
    """One front end's process, from the core's side. Belongs to the event loop.

    Args:
        settings: what it is told.
        service: what answers its clients.
    """

    def __init__(self, settings: FrontEndSettings, service: InferenceService) -> None:
        self._settings = settings
        self._service = service
        self._link = Link(self._receive, self._lost)
        self._desk: Desk | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    async def start(self) -> None:
        """Start it, and wait until it listens. Raises `ConfigError` when it cannot, `OSError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.to_thread(_spawn, self._settings, theirs)
        self._desk = Desk(self._service, self._process.pid, self._link.send)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._link, ours)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._listening
        except TimeoutError:
            raise ConfigError(f"a front end did not start within {START_TIMEOUT_S:g} s") from None

    def tell(self, *, serving: bool) -> None:
        """Tell it what its health service is to say."""
        self._link.send(pack_number(Kind.SERVING, serving))

    async def stop(self, grace_s: float) -> None:
        """Have it accept nothing more, and end after `grace_s` or a little later."""
        self._link.send(pack_number(Kind.STOP, grace_s))
        try:
            async with asyncio.timeout(grace_s + STOP_EXTRA_S):
                await self.gone.wait()
        except TimeoutError:
            logger.warning("a front end does not end: it is killed")
        await self.end()

    async def end(self) -> None:
        """Kill it if it still runs, and bury it. Idempotent."""
        self._link.close()
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _receive(self, frames: Sequence[Frame]) -> None:
        if self._listening.done() and self._desk is not None:
            self._desk.receive(frames)
            return
        first, *others = frames
        if first.kind == Kind.READY:
            self._welcome(*unpack_ready(first.body))
            if others:
                self._receive(others)
        else:
            self._listening.set_exception(ConfigError(first.body.decode(errors="replace")))

    def _welcome(self, address: int, nbytes: int) -> None:
        may_refer = self._process is not None and _can_read(self._process.pid, address, nbytes)
        self._link.send(pack_number(Kind.WELCOME, may_refer))
        self._listening.set_result(None)

    def _lost(self) -> None:
        if self._desk is not None:
            self._desk.close()
        if not self._listening.done():
            self._listening.set_exception(ConfigError("a front end ended before it listened; see its log"))
        self.gone.set()


class FrontEnds:
    """Serves the protocol through several processes that share one port, as `GrpcServer` does in its own.

    Args:
        settings: the clients' port.
        logs: format and level of their logs.
        count: how many.
        service: what answers.

    Raises:
        CannotListen: the port is in use, or the address is not this machine's.
    """

    def __init__(
        self, settings: PortSettings, logs: tuple[str, str], count: int, service: InferenceService
    ) -> None:
        self._port = KeptPort(settings)
        self._settings = FrontEndSettings(self._port.settings, *logs)
        self._service = service
        self._keeping: list[asyncio.Task[None]] = []
        self._running: set[FrontEndProcess] = set()
        self._serving = False
        self.count = count
        self.restarts = 0
        self.port = self._port.settings.port

    @property
    def running(self) -> int:
        """How many listen now."""
        return len(self._running)

    async def start(self) -> None:
        """Start all; health says not serving until it is told otherwise. Raises `ConfigError`."""
        starting = [self._start_one() for _ in range(self.count)]
        started = await asyncio.gather(*starting, return_exceptions=True)
        failed = [one for one in started if isinstance(one, BaseException)]
        if failed:
            await self.stop(0.0)
            raise failed[0]
        self._keeping = [asyncio.create_task(self._keep(one)) for one in tuple(self._running)]

    async def set_serving(self, *, serving: bool) -> None:
        """Have every front end tell health checks and their watchers."""
        self._serving = serving
        for one in self._running:
            one.tell(serving=serving)

    async def stop(self, grace_s: float) -> None:
        """Accept no calls any more; after `grace_s` those still open are cancelled. Safe to call twice."""
        for task in self._keeping:
            task.cancel()
        self._keeping.clear()
        running, self._running = self._running, set()
        await asyncio.gather(*[one.stop(grace_s) for one in running])
        self._port.close()

    async def _start_one(self) -> FrontEndProcess:
        one = FrontEndProcess(self._settings, self._service)
        try:
            await one.start()
        except BaseException:
            await one.end()
            raise
        self._running.add(one)
        one.tell(serving=self._serving)
        return one

    async def _keep(self, one: FrontEndProcess) -> None:
        """Have another one take its place whenever it dies; its clients meanwhile turn to the others."""
        while True:
            await one.gone.wait()
            self._running.discard(one)
            await one.end()
            self.restarts += 1
            logger.error("a front end has ended: what its clients asked is withdrawn, and it is started anew")
            one = await self._replacement()

    async def _replacement(self) -> FrontEndProcess:
        pause_s = SOONEST_RESTART_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                return await self._start_one()
            except (BoultonError, OSError) as error:
                logger.error("a front end cannot be started: %s", error)  # the text says all
            pause_s = min(2 * pause_s, LATEST_RESTART_S)


def _spawn(settings: FrontEndSettings, link: socket.socket) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", MODULE, "--link", str(link.fileno()), "--settings", settings.to_json())
    return subprocess.Popen(command, pass_fds=(link.fileno(),), stdin=subprocess.DEVNULL)


def _can_read(process_id: int, address: int, nbytes: int) -> bool:
    """Whether the kernel lets this process read that one's memory; otherwise pixels go through the socket."""
    read = np.empty(nbytes, np.uint8)
    try:
        read_process(process_id, address, read)
    except OSError as error:
        logger.warning("front ends' memory cannot be read (%s): images are copied twice more", error)
        return False
    return read.tobytes() == TRIAL
