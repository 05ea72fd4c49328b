"""One front end's process, from the core's side: started, welcomed, answered, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from server.errors import ConfigError
from server.front_ends.arena import make_arena, open_arena
from server.front_ends.desk import Desk
from server.front_ends.frames import Frame, Kind, pack_number
from server.front_ends.link import Link
from server.front_ends.process import FrontEndSettings
from server.inference.service import InferenceService

MODULE = "server.front_ends.process"
START_TIMEOUT_S = 60.0
STOP_EXTRA_S = 5.0
SAID_TIMEOUT_S = 2.0

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
        self._told: deque[asyncio.Future[None]] = deque()
        self.gone = asyncio.Event()

    async def start(self) -> None:
        """Start it, and wait until it listens. Raises `ConfigError` when it cannot, `OSError`."""
        ours, arena = await self._spawned()
        self._desk = Desk(self._service, open_arena(arena), self._link.send)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self._link, ours)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._listening
        except TimeoutError:
            raise ConfigError(f"a front end did not start within {START_TIMEOUT_S:g} s") from None

    async def tell(self, *, serving: bool) -> bool:
        """Tell it what its health service is to say; whether it does so soon, or has ended."""
        said = asyncio.get_running_loop().create_future()
        self._told.append(said)
        self._link.send(pack_number(Kind.SERVING, serving))
        with suppress(TimeoutError):
            async with asyncio.timeout(SAID_TIMEOUT_S):
                await said
                return True
        return False

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

    async def _spawned(self) -> tuple[socket.socket, int]:
        """Start it; return our end of the link, and the arena. Raises `OSError`; nothing is open then."""
        with ExitStack() as opened:
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                arena = make_arena()
                opened.callback(os.close, arena)
                self._process = await asyncio.to_thread(_spawn, self._settings, theirs.fileno(), arena)
            opened.pop_all()
        return ours, arena

    def _receive(self, frames: Sequence[Frame]) -> None:
        if self._listening.done() and self._desk is not None:
            self._desk.receive(self._without_said(frames) if self._told else frames)
            return
        first, *others = frames
        if first.kind == Kind.FAILED:
            self._listening.set_exception(ConfigError(first.body.decode(errors="replace")))
            return
        self._listening.set_result(None)
        if others:
            self._receive(others)

    def _without_said(self, frames: Sequence[Frame]) -> list[Frame]:
        """Take the answers to `tell` out."""
        for _ in range(sum(frame.kind == Kind.SAID for frame in frames)):
            _settle(self._told.popleft())
        return [frame for frame in frames if frame.kind != Kind.SAID]

    def _lost(self) -> None:
        while self._told:
            _settle(self._told.popleft())
        if self._desk is not None:
            self._desk.close()
            self._desk = None  # and with it the arena, however late the collector comes
        if not self._listening.done():
            self._listening.set_exception(ConfigError("a front end ended before it listened; see its log"))
        self.gone.set()


def _settle(said: asyncio.Future[None]) -> None:
    if not said.done():  # else nobody waits any more
        said.set_result(None)


def _spawn(settings: FrontEndSettings, link: int, arena: int) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", MODULE, "--link", str(link), "--arena", str(arena))
    told = ("--settings", settings.to_json())
    return subprocess.Popen((*command, *told), pass_fds=(link, arena), stdin=subprocess.DEVNULL)
