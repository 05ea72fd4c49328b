"""The event loop that everything runs in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

logger = logging.getLogger("boulton.daemon")


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine to its end, in the fastest loop there is."""
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        return runner.run(main)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        logger.info("uvloop is not installed; the event loop is the standard library's")
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
