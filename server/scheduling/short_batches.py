"""Which batches the event loop runs itself, and which it hands to the engine's thread."""

from __future__ import annotations

import math

from server.scheduling.service_time import ServiceTimes

SHORT_S = 250e-6
"""A batch that takes less than this is run by the event loop itself: to hand it to the thread and back costs
more processor time than that, most of it spent by two threads on waiting for one interpreter lock."""

CLOCK_TICK_S = 1e-9

LOOK_AGAIN = 512
"""Every so many crowds one goes to the thread all the same: what it takes may have changed."""


class ShortBatches:
    """Decides for an engine that any thread may use.

    Args:
        times: how long its batches took.
    """

    def __init__(self, times: ServiceTimes) -> None:
        self._times = times
        self._crowds = 0

    def most(self, images: int) -> int | None:
        """How many of the images that wait the loop is to run now; None: the thread is to run all of them.

        A crowd is run a few at a time where that costs less than all of it together and the handing over:
        caches that one image fits into hold no batch of many.
        """
        if self._times.shortest(images) < SHORT_S:
            return images
        few = int(SHORT_S / max(self._times.shortest(1), CLOCK_TICK_S))
        if images <= few:
            return images
        return few if few and self._is_cheaper_apart(images) else None

    def _is_cheaper_apart(self, images: int) -> bool:
        self._crowds += 1
        together_s = self._times.shortest(images)
        if together_s == math.inf or self._crowds % LOOK_AGAIN == 0:
            return False
        return images * self._times.shortest(1) <= together_s + SHORT_S
