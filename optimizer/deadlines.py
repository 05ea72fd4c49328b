"""Time as a queue needs it: a clock that only goes forward, and the deadlines of whatever waits."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

_STALE_ALLOWANCE = 64


class Waiting(Protocol):
    """Something with a deadline that leaves the queue at some time."""

    queued: bool


W = TypeVar("W", bound=Waiting)


class ForwardClock:
    """The caller's clock made to go forward only: after a step back, time goes on from where it was.

    Inner time is caller's time plus `offset_s`, which stays 0 as long as the caller's clock behaves.
    """

    __slots__ = ("_now_s", "offset_s")

    def __init__(self) -> None:
        self._now_s = -math.inf
        self.offset_s = 0.0

    def advance(self, caller_s: float) -> float:
        """Return the inner time of now."""
        inner_s = caller_s + self.offset_s
        if inner_s < self._now_s:
            self.offset_s = self._now_s - caller_s
            inner_s = self._now_s
        self._now_s = inner_s
        return inner_s

    def inner(self, caller_s: float, caller_now_s: float) -> float:
        """Return the inner time of a caller's time; what is over for the caller is over, despite rounding."""
        inner_s = caller_s + self.offset_s
        return inner_s if caller_s > caller_now_s else min(inner_s, self._now_s)

    def to_caller(self, inner_s: float) -> float:
        """Return a time of the caller that `advance` turns into `inner_s` or, by rounding, just after it."""
        caller_s = inner_s - self.offset_s
        while caller_s + self.offset_s < inner_s:  # a caller woken a moment too early would wake for nothing
            caller_s = math.nextafter(caller_s, math.inf)
        return caller_s


class DeadlineHeap(Generic[W]):
    """The waiting deadlines, earliest first. What left is removed lazily: O(log n) amortised.

    Clear `queued` and call `forget` when something leaves.
    """

    __slots__ = ("_heap", "_sequence", "_stale")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, W]] = []
        self._sequence = count()
        self._stale = 0

    def __len__(self) -> int:
        """Deadlines in memory, those that left included."""
        return len(self._heap)

    def push(self, deadline_s: float, waiting: W) -> None:
        """Add a deadline; equal ones keep their order."""
        heappush(self._heap, (deadline_s, next(self._sequence), waiting))

    def earliest(self) -> W | None:
        """Return what must be answered first; None when nothing waits."""
        heap = self._heap
        while heap and not heap[0][2].queued:
            heappop(heap)
            self._stale -= 1
        return heap[0][2] if heap else None

    def earliest_s(self) -> float:
        """Return the earliest waiting deadline; infinity when nothing waits."""
        return self._heap[0][0] if self.earliest() is not None else math.inf

    def forget(self) -> None:
        """Something left while its deadline is still here: sweep when those are many and in the majority."""
        self._stale += 1
        if self._stale > max(_STALE_ALLOWANCE, len(self._heap) // 2):
            self._heap = [item for item in self._heap if item[2].queued]
            heapify(self._heap)
            self._stale = 0
