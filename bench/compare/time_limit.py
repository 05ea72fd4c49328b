"""How much time there is for a comparison, and for each part of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TimeLimit:
    """Counts down from its making.

    Args:
        seconds: how much there is; infinite by default.
        clock: seconds, rising.
    """

    def __init__(self, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = clock() + seconds

    @property
    def left_s(self) -> float:
        """What is left, 0 when it is over."""
        return max(0.0, self._until_s - self._clock())

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long ends in time."""
        return seconds < self.left_s

    def divided(self, parts: int) -> TimeLimit:
        """Return the first of equal parts of what is left."""
        return TimeLimit(self.left_s / parts, self._clock)
