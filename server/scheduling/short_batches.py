"""How much of what waits is run at once, and whether by the event loop itself or by the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from server.scheduling.cheaper_way import CheaperWay, Way
from server.scheduling.service_time import ServiceTimes

SHORT_S = 250e-6
"""A batch that takes less than this is run by the event loop itself: to hand it to the thread and back costs
more processor time than that, most of it spent by two threads on waiting for one interpreter lock."""

PIECE_S = 2 * SHORT_S
"""So much of a crowd is run at once: larger pieces cost less an image, but the loop serves nobody then."""

APART_S = 2 * PIECE_S
"""A crowd of images that take longer is left to the thread: the loop serves others as well."""

FEW_IMAGES = 4
"""So many of them the thread runs at once where a few at a time are cheaper: what a batch costs besides is
little for each of four images that take a millisecond or more."""

CLOCK_TICK_S = 1e-9

_SMALLEST = (1, 2, 3, FEW_IMAGES)


class Portion(NamedTuple):
    """What to run next.

    Args:
        images: how many of those that wait; None: as many as the batch limit allows.
        here: whether the event loop runs them itself.
    """

    images: int | None
    here: bool


ALL_IN_THREAD = Portion(None, here=False)


class ShortBatches:
    """Decides for an engine that any thread may use, which is one on the processor.

    A crowd, which takes longer than a short batch, is run a few images at a time where that was measured to
    be cheaper than all of it together: caches that one image fits into hold no batch of many.

    Args:
        times: how long its batches took.
        busy: seconds that this process has worked: what its other threads do for a request counts, too.
    """

    def __init__(self, times: ServiceTimes, *, busy: Callable[[], float] = time.process_time) -> None:
        self._times = times
        self._crowds = CheaperWay()
        self._crowd = False
        self._busy = busy
        self._run: _Run | None = None

    def portion(self, images: int) -> Portion:
        """How much of the images that wait is to be run now."""
        self._crowd = False
        if self._times.shortest(images) < SHORT_S:
            return Portion(images, here=True)
        least_s = max(self._least_s_an_image(), CLOCK_TICK_S)
        if images * least_s <= SHORT_S:
            return Portion(images, here=True)
        here = least_s < APART_S
        few = max(1, int(PIECE_S / least_s)) if here else FEW_IMAGES
        self._crowd = images > (1 if here else FEW_IMAGES)
        if not self._crowd or self._crowds.way is Way.TOGETHER:
            return ALL_IN_THREAD
        return Portion(min(images, few), here=here)

    def _least_s_an_image(self) -> float:
        """What an image takes in the smallest batches: how long one alone took was often disturbed."""
        return min(self._times.shortest(images) / images for images in _SMALLEST)

    def began(self, images: int, now_s: float, *, apart: bool) -> None:
        """Learn that a batch has begun, and so how long the one before it kept the next one waiting."""
        if self._run is not None:
            self._crowds.ran(self._run.way, self._run.images, self._taken_s(self._run, now_s))
        way = Way.APART if apart else Way.TOGETHER
        self._run = _Run(way, images, now_s) if self._crowd else None

    def paused(self, now_s: float) -> None:
        """Learn that nothing waits, or may wait: until the next batch begins only work counts."""
        if self._run is not None and self._run.until_pause_s is None:
            self._run.until_pause_s = now_s - self._run.began_s
            self._run.busy_s = self._busy()

    def _taken_s(self, run: _Run, now_s: float) -> float:
        if run.until_pause_s is None:
            return now_s - run.began_s
        return run.until_pause_s + self._busy() - run.busy_s


@dataclass(slots=True)
class _Run:
    """A batch out of a crowd, and how much had been worked when nothing waited any more."""

    way: Way
    images: int
    began_s: float
    until_pause_s: float | None = None
    busy_s: float = 0.0
