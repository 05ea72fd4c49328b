"""The front ends of one daemon: started, told what to say of its health, replaced when they die, stopped."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from server.errors import BoultonError
from server.front_ends.child import FrontEndProcess
from server.front_ends.port import KeptPort
from server.front_ends.process import FrontEndSettings
from server.inference.service import InferenceService
from server.transport.grpc_server import PortSettings

SOONEST_RESTART_S, LATEST_RESTART_S = 0.1, 5.0
LOOK_EVERY_S, HUNG_AFTER_S = 5.0, 20.0
"""A front end that has answered nothing for so long is killed: its clients turn to one that works."""

logger = logging.getLogger("boulton.front_ends")


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
        await asyncio.gather(*[one.tell(serving=serving) for one in self._running])

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
        await one.tell(serving=self._serving)
        return one

    async def _keep(self, one: FrontEndProcess) -> None:
        """Have another one take its place whenever it dies; its clients meanwhile turn to the others."""
        while True:
            await self._until_gone(one)
            self._running.discard(one)
            await one.end()
            self.restarts += 1
            logger.error("a front end has ended: what its clients asked is withdrawn, and it is started anew")
            one = await self._replacement()

    async def _until_gone(self, one: FrontEndProcess) -> None:
        """Wait until it has ended; one that hangs is killed."""
        clock = asyncio.get_running_loop().time
        answered_s = clock()
        while not await _set_within(one.gone, LOOK_EVERY_S):
            if await one.tell(serving=self._serving):
                answered_s = clock()
            elif clock() - answered_s > HUNG_AFTER_S:
                logger.error("a front end has not answered for %.0f s: it is killed", clock() - answered_s)
                await one.end()
                return

    async def _replacement(self) -> FrontEndProcess:
        pause_s = SOONEST_RESTART_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                return await self._start_one()
            except (BoultonError, OSError) as error:
                logger.error("a front end cannot be started: %s", error)  # the text says all
            pause_s = min(2 * pause_s, LATEST_RESTART_S)


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event, but not for ever; whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()
