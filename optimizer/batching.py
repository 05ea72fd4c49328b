"""The batch queue: which requests run next, and when to ask again. Pure: no clock, thread, future or I/O.

The rules, in order:

- A batch is *full* when at least `batch_limit` images wait, or when draining: it could not grow any more. A
  full batch is handed out at any time, so that it can be staged behind a batch that is still running.
- A batch that could still grow is handed out only to an idle engine, once the oldest request has waited
  `max_delay_s`, or once the most urgent deadline leaves only the predicted time of the batch and a margin.
- Priorities are strict: a lower number always goes first, and within one number the order is first in, first
  out. Nothing ages, so sustained urgent load starves the rest; with a deadline they are then refused in time.
- A request that fits into one batch is never split; a larger one fills whatever room there is, in row order.
- Nothing is computed for nothing: a request whose deadline is predicted to be missed is refused when offered.
  In the queue it expires at its deadline, or earlier when a batch is about to start in which it could only be
  late. Under saturation this drops the hopeless and keeps batches full, instead of shrinking batches to chase
  lost deadlines.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from optimizer.deadlines import DeadlineHeap, ForwardClock

T = TypeVar("T")

PRIORITY_LEVELS = 16
"""Priorities 0 (most urgent) to 15; numbers outside count as the nearest of these."""

SLACK_MARGIN_S = 0.002
SLACK_MARGIN_SHARE = 0.25
"""A deadline-driven batch starts this much (plus this share of its predicted time) before the last moment."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds on what may wait, both at least 1. Bytes count until a request's last row is handed out."""

    max_images: int
    max_bytes: int


class Refusal(StrEnum):
    """Why a request was not accepted."""

    QUEUE_FULL = "queue full"
    DEADLINE = "deadline cannot be met"
    TOO_LARGE = "larger than the whole queue"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, eq=False)
class Request(Generic[T]):
    """Images that one client wants computed. Identity is the object itself.

    Args:
        payload: whatever the caller wants to find again.
        images: rows, at least 1; may exceed the batch limit.
        nbytes: memory held while waiting.
        arrival_s: when it arrived, for whoever measures latency; waiting counts from the offer.
        deadline_s: absolute time, on the queue's clock, at which an answer is worthless.
        priority: 0 is the most urgent; see `PRIORITY_LEVELS`.
    """

    payload: T
    images: int
    nbytes: int
    arrival_s: float
    deadline_s: float | None = None
    priority: int = 0


class Slice(NamedTuple, Generic[T]):
    """Rows `start` to `start + images` of a request."""

    request: Request[T]
    start: int
    images: int


class Batch(NamedTuple, Generic[T]):
    """What the engine runs at once; `images` is the sum over `slices`."""

    slices: tuple[Slice[T], ...]
    images: int


class Step(NamedTuple, Generic[T]):
    """What is to be done now.

    Args:
        batch: to be run next; after a batch, ask again whether another one is full.
        expired: left the queue because their deadline passed or became hopeless; answer them so.
        wake_s: absolute time at which to ask again if nothing else happens, assuming that the engine took
            `batch`; None when time alone changes nothing.
    """

    batch: Batch[T] | None
    expired: tuple[Request[T], ...]
    wake_s: float | None


class _Entry(Generic[T]):
    """A request while it waits: its first row not handed out yet, and its times on the queue's own clock."""

    __slots__ = ("deadline_s", "level", "next_row", "queued", "request", "since_s")

    def __init__(self, request: Request[T], level: int, since_s: float, deadline_s: float | None) -> None:
        self.request = request
        self.level = level
        self.since_s = since_s
        self.deadline_s = deadline_s
        self.next_row = 0
        self.queued = True


class BatchQueue(Generic[T]):
    """Bounded queue of requests that hands out batches. Not thread-safe: one owner.

    Every method takes the time from the caller. Should that clock go backwards, time goes on from where it
    was: the time waited and the time left to deadlines are kept.

    Args:
        limits: bounds on waiting images and bytes.
        batch_limit: largest batch in images, at least 1; may be changed at any time.
        max_delay_s: how long a batch may wait to grow while the engine is idle; may be changed at any time.
        service_time_s: predicted seconds for a batch of that many images; 0 when nothing is known.
    """

    def __init__(
        self,
        limits: QueueLimits,
        batch_limit: int,
        max_delay_s: float,
        service_time_s: Callable[[int], float],
    ) -> None:
        if limits.max_images < 1 or limits.max_bytes < 1:
            raise ValueError(f"queue limits must be at least 1, got {limits}")
        self._limits = limits
        self._service_time_s = service_time_s
        self.batch_limit = batch_limit
        self.max_delay_s = max_delay_s
        self._lanes: tuple[OrderedDict[Request[T], _Entry[T]], ...]
        self._lanes = tuple(OrderedDict() for _ in range(PRIORITY_LEVELS))
        self._lane_images = [0] * PRIORITY_LEVELS
        self._deadlines: DeadlineHeap[_Entry[T]] = DeadlineHeap()
        self._length = 0
        self._images = 0
        self._bytes = 0
        self._draining = False
        self._clock = ForwardClock()
        self._busy_until_s = -math.inf

    @property
    def batch_limit(self) -> int:
        """Largest batch in images. After a change ask for a step."""
        return self._batch_limit

    @batch_limit.setter
    def batch_limit(self, images: int) -> None:
        if images < 1:
            raise ValueError(f"batch_limit must be at least 1 image, got {images}")
        self._batch_limit = images

    @property
    def max_delay_s(self) -> float:
        """How long a batch may wait to grow while the engine is idle. After a change ask for a step."""
        return self._max_delay_s

    @max_delay_s.setter
    def max_delay_s(self, delay_s: float) -> None:
        if not 0.0 <= delay_s < math.inf:
            raise ValueError(f"max_delay_s must be finite and not negative, got {delay_s}")
        self._max_delay_s = delay_s

    @property
    def queued_images(self) -> int:
        """Images accepted and not yet handed out."""
        return self._images

    @property
    def queued_bytes(self) -> int:
        """Bytes of the requests that still have rows waiting."""
        return self._bytes

    def __len__(self) -> int:
        """Requests that still have rows waiting."""
        return self._length

    def offer(self, request: Request[T], now_s: float) -> Refusal | None:
        """Accept a request (None) or say why not. Raises ValueError for no images or when already queued."""
        if request.images < 1 or request.nbytes < 0:
            given = f"{request.images} images and {request.nbytes} bytes"
            raise ValueError(f"a request needs at least 1 image and 0 bytes, got {given}")
        level = _level(request.priority)
        lane = self._lanes[level]
        if request in lane:
            raise ValueError("the request is already queued")
        inner_s, deadline_s = self._clock.advance(now_s), request.deadline_s
        if deadline_s is not None:
            deadline_s = self._clock.inner(deadline_s, now_s)
        entry = _Entry(request, level, inner_s, deadline_s)
        refusal = self._refusal(entry)
        if refusal is None:
            self._admit(entry)
        return refusal

    def cancel(self, request: Request[T]) -> bool:
        """Withdraw what is left of a request. True if any row was still waiting."""
        entry = self._lanes[_level(request.priority)].get(request)
        if entry is not None:
            self._remove(entry)
        return entry is not None

    def step(self, now_s: float, *, engine_idle: bool, most_images: int | None = None) -> Step[T]:
        """Decide. With a busy engine only a full batch is handed out (for staging); expiry always happens.

        `most_images` is for this batch what the batch limit is for all; a request that is larger alone is
        handed out as ever.
        """
        now_s = self._clock.advance(now_s)
        if engine_idle:
            self._busy_until_s = now_s
        expired = self._expire(now_s)
        batch = None
        if self._ready(now_s, engine_idle):
            expired += self._expire_hopeless(max(now_s, self._busy_until_s))
            if self._ready(now_s, engine_idle):
                batch = self._take(most_images)
                self._busy_until_s = max(now_s, self._busy_until_s) + self._service_time_s(batch.images)
        wake_s = self._wake_s(growing=engine_idle and batch is None)
        return Step(batch, tuple(expired), wake_s)

    def expire(self, now_s: float) -> Step[T]:
        """Only let deadlines pass: for a caller that can take no batch now. The step's batch is None."""
        expired = self._expire(self._clock.advance(now_s))
        return Step(None, tuple(expired), self._wake_s(growing=False))

    def drain(self) -> None:
        """Accept nothing more; whatever waits is handed out without delay. After this ask for a step."""
        self._draining = True

    def clear(self) -> tuple[Request[T], ...]:
        """Give up: return everything that still had rows waiting, most urgent first."""
        requests = tuple(request for lane in self._lanes for request in lane)
        for request in requests:
            self.cancel(request)
        return requests

    # Admission

    def _refusal(self, entry: _Entry[T]) -> Refusal | None:
        if self._draining:
            return Refusal.DRAINING
        images, nbytes, limits = entry.request.images, entry.request.nbytes, self._limits
        if images > limits.max_images or nbytes > limits.max_bytes:
            return Refusal.TOO_LARGE
        if self._images + images > limits.max_images or self._bytes + nbytes > limits.max_bytes:
            return Refusal.QUEUE_FULL
        if entry.deadline_s is not None and not self._feasible(entry, entry.deadline_s):
            return Refusal.DEADLINE
        return None

    def _feasible(self, entry: _Entry[T], deadline_s: float) -> bool:
        """Whether everything as urgent that waits, and then this, in batches of the limit, ends in time."""
        images = sum(self._lane_images[: entry.level + 1]) + entry.request.images
        batches, rest = divmod(images, self._batch_limit)
        end_s = max(entry.since_s, self._busy_until_s)
        end_s += batches * self._service_time_s(self._batch_limit) if batches else 0.0
        end_s += self._service_time_s(rest) if rest else 0.0
        return end_s <= deadline_s and entry.since_s < deadline_s

    def _admit(self, entry: _Entry[T]) -> None:
        self._lanes[entry.level][entry.request] = entry
        self._length += 1
        self._bytes += entry.request.nbytes
        self._images += entry.request.images
        self._lane_images[entry.level] += entry.request.images
        if entry.deadline_s is not None:
            self._deadlines.push(entry.deadline_s, entry)

    def _remove(self, entry: _Entry[T]) -> None:
        del self._lanes[entry.level][entry.request]
        entry.queued = False
        self._length -= 1
        self._bytes -= entry.request.nbytes
        self._hand_out(entry, entry.request.images - entry.next_row)
        if entry.deadline_s is not None:
            self._deadlines.forget()

    def _hand_out(self, entry: _Entry[T], images: int) -> None:
        entry.next_row += images
        self._images -= images
        self._lane_images[entry.level] -= images

    # Dispatch

    def _full(self) -> bool:
        return self._images >= self._batch_limit or self._draining

    def _ready(self, now_s: float, engine_idle: bool) -> bool:
        return self._images > 0 and (self._full() or (engine_idle and self._due_s() <= now_s))

    def _due_s(self) -> float:
        """When a batch that could still grow must start on an idle engine."""
        if not self._max_delay_s:
            return -math.inf
        due_s = min(next(iter(lane.values())).since_s for lane in self._lanes if lane) + self._max_delay_s
        deadline_s = self._deadlines.earliest_s()
        if deadline_s == math.inf:
            return due_s
        needed_s = self._service_time_s(self._images) * (1.0 + SLACK_MARGIN_SHARE) + SLACK_MARGIN_S
        return min(due_s, deadline_s - needed_s)

    def _take(self, most_images: int | None) -> Batch[T]:
        few = self._fill(min(most_images, self._batch_limit)) if most_images else None
        return few if few is not None and few.images else self._fill(self._batch_limit)

    def _fill(self, images: int) -> Batch[T]:
        slices: list[Slice[T]] = []
        room = images
        for lane in self._lanes:
            while lane and room:
                entry = next(iter(lane.values()))
                rows = self._fitting_rows(entry, room)
                if not rows:
                    return Batch(tuple(slices), images - room)
                room -= rows
                slices.append(self._cut(entry, rows))
        return Batch(tuple(slices), images - room)

    def _fitting_rows(self, entry: _Entry[T], room: int) -> int:
        remaining = entry.request.images - entry.next_row
        if remaining <= room:
            return remaining
        return room if remaining > self._batch_limit else 0

    def _cut(self, entry: _Entry[T], rows: int) -> Slice[T]:
        piece = Slice(entry.request, entry.next_row, rows)
        if entry.next_row + rows == entry.request.images:
            self._remove(entry)
        else:
            self._hand_out(entry, rows)
        return piece

    # Deadlines

    def _wake_s(self, *, growing: bool) -> float | None:
        wake_s = self._due_s() if growing and self._images else self._deadlines.earliest_s()
        return None if wake_s == math.inf else self._clock.to_caller(wake_s)

    def _expire(self, until_s: float) -> list[Request[T]]:
        expired: list[Request[T]] = []
        while self._deadlines.earliest_s() <= until_s:
            expired.append(self._drop_most_urgent())
        return expired

    def _expire_hopeless(self, start_s: float) -> list[Request[T]]:
        """Drop what could only be late in the batch that starts now, or, when there is room, even alone."""
        expired: list[Request[T]] = []
        while (deadline_s := self._deadlines.earliest_s()) < math.inf:
            images = min(self._images, self._batch_limit) if self._full() else 1
            if start_s + self._service_time_s(images) <= deadline_s:
                break
            expired.append(self._drop_most_urgent())
        return expired

    def _drop_most_urgent(self) -> Request[T]:
        entry = self._deadlines.earliest()
        assert entry is not None, "only called while a deadline waits"  # noqa: S101
        self._remove(entry)
        return entry.request


def _level(priority: int) -> int:
    return min(max(priority, 0), PRIORITY_LEVELS - 1)
