"""A discrete-event simulation of one server on one simulated GPU, in simulated time.

It runs the queue, the governor and the policy that serve in production; only the engine, the clock and the
traffic are made up. The governor is handed in as anything with a `step`, so that the twin knows no policies.

Events are arrivals, the end of a batch, the moments at which the queue asked to be asked again, and the turns
of the governor. Arrivals at one moment are all in the queue before anybody looks at it, and so are those at
the moment of another event.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.batching import Batch, BatchQueue, QueueLimits, Request
from optimizer.devices.simulated import SimulatedGpu
from optimizer.operating_point import OperatingPoint
from optimizer.queue_alarm import QueueAlarm
from optimizer.surge import Tripwire
from optimizer.telemetry import LATEST_BATCHES, BatchTimes, DeviceReading, SoFar, Traffic, sum_up

_REQUEST_BYTES = 1
_NEVER = 1 << 62
"""More images than ever wait."""


class SimulatedClock:
    """A time in seconds that only the simulation moves."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class SimulatedServer:
    """A queue in front of a simulated GPU; implements `Plant`. Requests are single images.

    Args:
        gpu: executes batches; must have been given the same clock.
        model: the network's name in the GPU's profile.
        clock: the simulated time.
        batch_limit: what is in force until the first `act`.
        max_queue_images: more are refused.
        deadline_s: after which a request expires; None for patient clients.
    """

    def __init__(
        self,
        gpu: SimulatedGpu,
        model: str,
        clock: SimulatedClock,
        *,
        batch_limit: int,
        max_queue_images: int = 100_000,
        deadline_s: float | None = None,
    ) -> None:
        self._gpu = gpu
        self._model = model
        self._clock = clock
        self._deadline_s = deadline_s
        limits = QueueLimits(max_queue_images, max_queue_images * _REQUEST_BYTES)
        self._queue: BatchQueue[None] = BatchQueue(
            limits, batch_limit, 0.0, lambda images: gpu.expected_s(model, images)
        )
        self._running: Batch[None] | None = None
        self._staged: Batch[None] | None = None
        self._done_s = self._wake_s = math.inf
        self._alarm = QueueAlarm()
        self._latencies_s = array("d")
        self._latest: deque[tuple[int, float]] = deque(maxlen=LATEST_BATCHES)
        self._sensed = 0
        self._arrived = 0
        self._times_s: NDArray[np.float64] = np.empty(0)
        self._asked_mhz: int | None = None
        self._clock_changes = -1
        self._reset()

    # Plant

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        """Return what happened since the previous call."""
        latencies_ms = self.latencies_ms_from(self._sensed)
        p50, p95, p99 = _quantiles(latencies_ms)
        requests = _request_images(self._times_s[self._arrived_before : self._arrived])
        traffic = Traffic(
            arrived=self._arrived - self._arrived_before,
            completed=latencies_ms.size,
            late=int((latencies_ms > slo_ms).sum()),
            refused=self._refused,
            expired=self._expired,
            queued=self._queue.queued_images,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            batches={size: BatchTimes(*times) for size, times in self._batches.items()},
            requests=requests.size,
            together=int(requests @ requests),
            largest_request=int(requests.max(initial=0)),
        )
        self._reset()
        return traffic, self._gpu.read()

    def act(self, point: OperatingPoint) -> None:
        """Apply a setting. Raises DeviceError for an illegal clock."""
        self._queue.batch_limit = point.batch_limit
        self._queue.max_delay_s = point.max_delay_ms / 1e3
        self._clock_changes += self._clock_changes < 0 or point.sm_clock_mhz != self._asked_mhz
        self._asked_mhz = point.sm_clock_mhz
        self._gpu.set_sm_clock_mhz(point.sm_clock_mhz)

    def so_far(self) -> SoFar:
        """Return the last few batches that were started, and the images that arrived since `sense`."""
        return SoFar(sum_up(self._latest), self._arrived - self._arrived_before)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` once, within the event that trips the wire; None: never."""
        self._alarm.watch(wire, sound)

    # Results

    @property
    def arrived(self) -> int:
        """Images that arrived since the beginning, those refused included."""
        return self._arrived

    @property
    def latencies_ms(self) -> NDArray[np.float64]:
        """How long every image that was answered since the beginning took, in the order of the answers."""
        return self.latencies_ms_from(0)

    @property
    def answered(self) -> int:
        """Images that were answered since the beginning."""
        return len(self._latencies_s)

    def latencies_ms_from(self, answered: int) -> NDArray[np.float64]:
        """Return the same of the images that were answered after so many."""
        return np.array(self._latencies_s[answered:]) * 1e3

    @property
    def clock_changes(self) -> int:
        """How often `act` asked for another clock than before."""
        return max(0, self._clock_changes)

    # Time

    def run(
        self,
        arrivals: Iterable[float] | NDArray[np.float64],
        until_s: float,
        every_s: float,
        each: Callable[[], object],
    ) -> None:
        """Let images arrive at ascending times, calling `each` every `every_s`, until `until_s`."""
        times: list[float] = arrivals.tolist() if isinstance(arrivals, np.ndarray) else list(arrivals)
        self._times_s = np.concatenate((self._times_s[: self._arrived], times))
        first, turns, start_s = 0, 1, self._clock.now_s
        while True:
            turn_s = start_s + turns * every_s
            event_s = min(self._done_s, self._wake_s, turn_s)
            first, noteworthy = self._admit(times, first, min(event_s, until_s))
            if not noteworthy:
                if event_s > until_s:
                    break
                self._clock.now_s = max(event_s, self._clock.now_s)
                if event_s == self._done_s:
                    self._finish()
                elif event_s == turn_s:
                    each()
                    turns += 1
            self._look()
        self._clock.now_s = max(self._clock.now_s, until_s)

    def _reset(self) -> None:
        self._arrived_before = self._arrived
        self._sensed = self.answered
        self._refused = self._expired = 0
        self._batches: dict[int, tuple[int, float]] = {}

    def _admit(self, times: Sequence[float], first: int, until_s: float) -> tuple[int, bool]:
        """Offer what arrives up to a time. Returns the next arrival, and whether it stopped for a look."""
        end = bisect_right(times, until_s, first)
        if end == first:
            return first, False
        noteworthy, queue, clock, patience_s = self._noteworthy(), self._queue, self._clock, self._deadline_s
        arrived = self._alarm.arrived
        for index in range(first, end):
            clock.now_s = now_s = times[index]
            deadline_s = None if patience_s is None else now_s + patience_s
            refusal = queue.offer(Request(None, 1, _REQUEST_BYTES, now_s, deadline_s), now_s)
            self._refused += refusal is not None
            if arrived(1, now_s):
                noteworthy = 0
            if queue.queued_images >= noteworthy and (index + 1 == end or times[index + 1] > now_s):
                self._arrived += index + 1 - first
                return index + 1, True
        self._arrived += end - first
        return end, False

    def _noteworthy(self) -> int:
        """How many waiting images call for a look; a refused one never does. Deadlines always matter."""
        if self._deadline_s is not None:
            return 1
        if self._running is None and self._wake_s == math.inf:
            return 1
        room = self._staged is None
        return min(self._queue.batch_limit if room else _NEVER, self._alarm.above_images + 1)

    def _look(self) -> None:
        """Hand out what can be handed out, and sound the alarm when too much is left."""
        self._dispatch()
        if self._alarm.see(self._queue.queued_images):
            self._dispatch()

    def _dispatch(self) -> None:
        """Start a batch on an idle engine; stage a full one behind a busy engine."""
        more = True
        while more:
            more = self._dispatch_one()

    def _dispatch_one(self) -> bool:
        """Returns whether another batch may be handed out."""
        queue, now_s = self._queue, self._clock.now_s
        room = self._staged is None
        step = queue.step(now_s, engine_idle=self._running is None) if room else queue.expire(now_s)
        self._expired += len(step.expired)
        self._wake_s = math.inf if step.wake_s is None else step.wake_s
        if step.batch is None:
            return False
        if self._running is None:
            self._start(step.batch)
        else:
            self._staged = step.batch
        return queue.queued_images >= queue.batch_limit

    def _start(self, batch: Batch[None]) -> None:
        seconds = self._gpu.execute(self._model, batch.images)
        count, total_s = self._batches.get(batch.images, (0, 0.0))
        self._batches[batch.images] = count + 1, total_s + seconds
        self._latest.append((batch.images, seconds))
        self._running, self._done_s = batch, self._clock.now_s + seconds

    def _finish(self) -> None:
        assert self._running is not None, "a batch was running"  # noqa: S101
        now_s = self._clock.now_s
        self._latencies_s.extend([now_s - piece.request.arrival_s for piece in self._running.slices])
        staged, self._running, self._staged, self._done_s = self._staged, None, None, math.inf
        if staged is not None:
            self._start(staged)


def _request_images(times_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the images of each request: those that came at the same moment came in one."""
    if not times_s.size:
        return np.empty(0, np.intp)
    return np.diff(np.flatnonzero(np.diff(times_s, prepend=-math.inf, append=math.inf)))


def _quantiles(latencies_ms: NDArray[np.float64]) -> tuple[float, float, float] | tuple[None, None, None]:
    """p50, p95 and p99, as the scheduler counts them: the latency that so many images had at most."""
    if not latencies_ms.size:
        return None, None, None
    p50, p95, p99 = np.quantile(latencies_ms, (0.50, 0.95, 0.99), method="inverted_cdf")
    return float(p50), float(p95), float(p99)
