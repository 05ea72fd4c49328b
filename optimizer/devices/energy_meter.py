"""The energy that a simulated device has used up to any recent time."""

from __future__ import annotations

import math
from bisect import bisect_right

_LEAST_KEPT = 1024


class EnergyMeter:
    """Energy used up to any recent time: idle power throughout, more while a batch runs.

    Args:
        idle_w: the power while nothing runs.
        memory_s: how far before the latest booking anybody will ask; what ended earlier is forgotten.
    """

    def __init__(self, idle_w: float, memory_s: float = math.inf) -> None:
        self._idle_w = idle_w
        self._memory_s = memory_s
        self._starts_s = [-math.inf]
        self._ends_s = [-math.inf]
        self._watts_above = [0.0]
        self._before_j = [0.0]  # above idle, up to each start
        self._total_above_j = 0.0
        self._busy_until_s = -math.inf
        self._trim_at = _LEAST_KEPT

    def book(self, now_s: float, seconds: float, power_w: float) -> None:
        """Add a batch; one that overlaps the previous is taken to run after it."""
        start_s = self._busy_until_s if self._busy_until_s > now_s else now_s
        self._busy_until_s = end_s = start_s + seconds
        watts = power_w - self._idle_w
        self._starts_s.append(start_s)
        self._ends_s.append(end_s)
        self._watts_above.append(watts)
        self._before_j.append(self._total_above_j)
        self._total_above_j += watts * seconds
        if len(self._starts_s) >= self._trim_at:
            self._trim(now_s - self._memory_s)

    def busy(self, now_s: float) -> bool:
        """Whether a batch runs."""
        return now_s < self._busy_until_s

    def joules(self, until_s: float) -> float:
        """Return the energy up to a time, counted from time 0."""
        last = max(0, bisect_right(self._starts_s, until_s) - 1)
        if last == 0:
            return self._idle_w * until_s + self._before_j[0]
        ran_s = min(until_s, self._ends_s[last]) - self._starts_s[last]
        return self._idle_w * until_s + self._before_j[last] + self._watts_above[last] * ran_s

    def _trim(self, before_s: float) -> None:
        """Drop what ended before, and come back when as much again has gathered: a constant cost a batch."""
        gone = bisect_right(self._ends_s, before_s) - 1
        if gone > 0:
            for column in (self._starts_s, self._ends_s, self._watts_above, self._before_j):
                del column[1 : gone + 1]
            self._before_j[0] = self._before_j[1] if len(self._before_j) > 1 else self._total_above_j
        self._trim_at = max(_LEAST_KEPT, 2 * len(self._starts_s))
