"""One loaded version of a model, from its load until its last request is answered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Self

from server.engines.engine import Engine
from server.inference.plan_cache import PlanCache
from server.models.spec import ModelSpec
from server.scheduling.scheduler import Scheduler
from server.scheduling.statistics import ModelStatistics

logger = logging.getLogger("boulton.models")


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One loaded model as metrics show it. `statistics` are the live counters, cumulative since the load."""

    name: str
    version: int
    platform: str
    simulated: bool
    statistics: ModelStatistics
    batch_limit: int
    max_batch: int
    queued_requests: int
    queued_images: int
    padded_images: int = 0


class ModelService:
    """One loaded version: what clients may know of it, its scheduler, its plans. Owned by the event loop."""

    def __init__(self, spec: ModelSpec, engine: Engine, scheduler: Scheduler) -> None:
        self.spec = spec
        self.engine = engine
        self.scheduler = scheduler
        self.plans = PlanCache(spec)
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def users(self) -> int:
        """How many requests hold this version now."""
        return self._users

    def __enter__(self) -> Self:
        """Hold it for the length of a block."""
        self.hold()
        return self

    def __exit__(self, *_raised: object) -> None:
        """Let go of it."""
        self.release()

    def hold(self) -> None:
        """Keep this version alive while a request is answered, whatever is loaded or unloaded meanwhile."""
        self._users += 1
        self._unused.clear()

    def release(self) -> None:
        """Let go of it, once for every `hold`."""
        self._users -= 1
        if self._users == 0:
            self._unused.set()

    async def retire(self, timeout_s: float) -> bool:
        """Finish the requests that hold this version, then close its engine; wait at most `timeout_s`.

        Returns:
            Whether all of them were answered.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._unused.wait()
        except TimeoutError:
            logger.warning("model '%s' version %d: requests abandoned after %g s", *self._label, timeout_s)
        drained = await self.scheduler.drain(0.0 if self._users else timeout_s)
        self.scheduler.close()
        return drained

    @property
    def _label(self) -> tuple[str, int]:
        return self.spec.name, self.spec.version

    def snapshot(self) -> ModelSnapshot:
        """Return what metrics show."""
        return ModelSnapshot(
            name=self.spec.name,
            version=self.spec.version,
            platform=self.spec.platform,
            simulated=self.engine.simulated,
            statistics=self.scheduler.statistics,
            batch_limit=self.scheduler.batch_limit,
            max_batch=self.spec.max_batch,
            queued_requests=self.scheduler.queued_requests,
            padded_images=self.engine.padded_images,
            queued_images=self.scheduler.queued_images,
        )
