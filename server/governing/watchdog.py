"""Says so when a device's driver keeps the governor waiting, and when it answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_S = 10.0

logger = logging.getLogger("boulton.governor")


class Watchdog:
    """Watches one wait at a time, in the event loop.

    Args:
        uuid: the device, for the log.
        limit_s: how long a wait may take before it is said.
    """

    def __init__(self, uuid: str, limit_s: float = LIMIT_S) -> None:
        self._uuid = uuid
        self._limit_s = limit_s
        self.waits_in_vain = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say it once when what is done inside takes longer than the limit, and when it came to an end."""
        loop = asyncio.get_running_loop()
        began_s, timer = loop.time(), loop.call_later(self._limit_s, self._bark)
        try:
            yield
        finally:
            timer.cancel()
        if self.waits_in_vain:
            self.waits_in_vain = False
            logger.warning("%s answers again, after %.0f s", self._uuid, loop.time() - began_s)

    def _bark(self) -> None:
        self.waits_in_vain = True
        logger.error(
            "%s has not answered for %g s: serving goes on, nothing is decided, and the setting stays",
            self._uuid,
            self._limit_s,
        )
