"""A request to a scheduler from end to end, as a unary call makes it."""

from __future__ import annotations

from server.engines.engine import Array
from server.scheduling.scheduler import Answer, Scheduler


async def answered(
    scheduler: Scheduler,
    inputs: tuple[Array, ...],
    images: int,
    *,
    nbytes: int,
    deadline_s: float | None = None,
    priority: int = 0,
) -> Answer:
    """`submit` and `answer` in one: nothing else is known to be on its way. Raises what they raise."""
    return await scheduler.answer(
        scheduler.submit(inputs, images, nbytes=nbytes, deadline_s=deadline_s, priority=priority)
    )
