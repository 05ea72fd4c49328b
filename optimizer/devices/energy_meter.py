"""The energy that a simulated device has used up to any recent time."""

from __future__ import annotations

import math
from collections import deque


class EnergyMeter:
    """Energy used up to any time since the last `forget`: idle power throughout, more while a batch runs."""

    def __init__(self, idle_w: float) -> None:
        self._idle_w = idle_w
        self._busy: deque[tuple[float, float, float]] = deque()  # start, end, watts above idle
        self._forgotten_j = 0.0
        self._busy_until_s = -math.inf

    def book(self, start_s: float, seconds: float, power_w: float) -> None:
        """Add a batch; one that overlaps the previous is taken to run after it."""
        start_s = max(start_s, self._busy_until_s)
        self._busy_until_s = start_s + seconds
        self._busy.append((start_s, self._busy_until_s, power_w - self._idle_w))

    def busy(self, now_s: float) -> bool:
        """Whether a batch runs."""
        return now_s < self._busy_until_s

    def joules(self, until_s: float) -> float:
        """Return the energy up to a time, counted from time 0."""
        above_j = sum(watts * max(0.0, min(end_s, until_s) - start_s) for start_s, end_s, watts in self._busy)
        return self._idle_w * until_s + self._forgotten_j + above_j

    def forget(self, before_s: float) -> None:
        """Keep only a sum of the batches that ended before a time that nobody will ask beyond."""
        while self._busy and self._busy[0][1] <= before_s:
            start_s, end_s, watts = self._busy.popleft()
            self._forgotten_j += watts * (end_s - start_s)
