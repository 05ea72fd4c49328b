"""Which of two ways to run a crowd of images takes less time, found by taking turns."""

from __future__ import annotations

import math
from enum import Enum, auto

SETTLING_IMAGES = 64
"""The first images of a turn do not count: they came while the other way was gone, which did part of their
work, and left part of its own to this one."""

TURN_IMAGES = 128
"""At least so many count then: answers of one way are to come back as requests that meet the same way."""

TURN_S = 0.1
"""And for at least so long: short turns are long or short by chance."""

MOST_TURNS = 32
"""The dearer way is looked at again after two turns of the cheaper one, then four, at last these; sooner at
these where it is clearly dearer."""

_CLEARLY = 1.1

_GROWTH = 1.03
"""By how much the least grows with every turn that does not reach it, to follow a change."""


class Way(Enum):
    """How to run the images that wait, where they are more than a few."""

    APART = auto()
    """A few at a time."""
    TOGETHER = auto()
    """As large a batch as may be."""


class CheaperWay:
    """Takes turns, few of them the dearer way, and keeps the least time an image that a turn took.

    Both are measured where they are used, so that everything counts that one costs and the other does not:
    caches, handing over, waits for the interpreter, what the loop gets done meanwhile.
    """

    def __init__(self) -> None:
        self._s_an_image = dict.fromkeys(Way, math.inf)
        self._cheaper = self._way = Way.APART
        self._settling = SETTLING_IMAGES
        self._images = 0
        self._seconds = 0.0
        self._turns = 1
        self._turns_left = 0

    @property
    def way(self) -> Way:
        """The way of the next batch."""
        return self._way

    def ran(self, way: Way, images: int, seconds: float) -> None:
        """Learn that `images` went `way` and that the next ones could begin after `seconds`."""
        if way is not self._way:
            return
        if self._settling > 0:
            self._settling -= images
            return
        self._images += images
        self._seconds += seconds
        if self._images >= TURN_IMAGES and self._seconds >= TURN_S:
            self._remember(self._seconds / self._images)
            self._settling, self._images, self._seconds = SETTLING_IMAGES, 0, 0.0
            self._way = self._next()

    def _remember(self, s_an_image: float) -> None:
        """Keep the least: what else runs on the machine makes turns longer, never shorter."""
        self._s_an_image[self._way] = min(s_an_image, self._s_an_image[self._way] * _GROWTH)

    def _next(self) -> Way:
        cheaper, dearer = sorted(Way, key=self._s_an_image.__getitem__)
        if cheaper is not self._cheaper:
            self._cheaper, self._turns, self._turns_left = cheaper, 1, 1
        if self._turns_left > 0:
            self._turns_left -= 1
            return cheaper
        clear = _CLEARLY * self._s_an_image[cheaper] < self._s_an_image[dearer] < math.inf
        self._turns = self._turns_left = min((4 if clear else 2) * self._turns, MOST_TURNS)
        return dearer
