"""A discrete-event simulation of one server on one simulated GPU, in simulated time.

It runs the queue, the governor and the policy that serve in production; only the engine, the clock and the
traffic are made up. The governor is handed in as anything with a `step`, so that the twin knows no policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from optimizer.batching import Batch, BatchQueue, QueueLimits, Request
from optimizer.devices.simulated import SimulatedGpu
from optimizer.operating_point import OperatingPoint
from optimizer.telemetry import BatchTimes, DeviceReading, Traffic

_REQUEST_BYTES = 1


class SimulatedClock:
    """A time in seconds that only the simulation moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

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
        self._done_s = math.inf
        self._reset()

    # Plant

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        """Return what happened since the previous call."""
        latencies = np.array(self._latencies_ms)
        quantiles = (
            [float(q) for q in np.quantile(latencies, (0.5, 0.95, 0.99))] if latencies.size else [None] * 3
        )
        traffic = Traffic(
            arrived=self._arrived,
            completed=latencies.size,
            late=int((latencies > slo_ms).sum()),
            refused=self._refused,
            expired=self._expired,
            queued=self._queue.queued_images,
            latency_p50_ms=quantiles[0],
            latency_p95_ms=quantiles[1],
            latency_p99_ms=quantiles[2],
            batches={size: BatchTimes(*times) for size, times in self._batches.items()},
        )
        self._reset()
        return traffic, self._gpu.read()

    def act(self, point: OperatingPoint) -> None:
        """Apply a setting. Raises DeviceError for an illegal clock."""
        self._queue.batch_limit = point.batch_limit
        self._gpu.set_sm_clock_mhz(point.sm_clock_mhz)

    # Time

    def run(
        self, arrivals: Iterable[float], until_s: float, every_s: float, each: Callable[[], object]
    ) -> None:
        """Let images arrive at ascending times, calling `each` every `every_s`, until `until_s`."""
        times = _ending(arrivals)
        arrival_s, each_s = next(times), self._clock.now_s + every_s
        while (now_s := min(arrival_s, self._done_s, each_s)) <= until_s:
            self._clock.now_s = now_s
            if now_s == self._done_s:
                self._finish()
            elif now_s == arrival_s:
                self._arrive()
                arrival_s = next(times)
            else:
                each()
                each_s += every_s
            self._dispatch()
        self._clock.now_s = max(self._clock.now_s, until_s)

    def _reset(self) -> None:
        self._arrived = self._refused = self._expired = 0
        self._latencies_ms: list[float] = []
        self._batches: dict[int, tuple[int, float]] = {}

    def _arrive(self) -> None:
        now_s = self._clock.now_s
        deadline_s = None if self._deadline_s is None else now_s + self._deadline_s
        request = Request(None, 1, _REQUEST_BYTES, now_s, deadline_s)
        self._arrived += 1
        self._refused += self._queue.offer(request, now_s) is not None

    def _dispatch(self) -> None:
        """Start a batch on an idle engine; stage a full one behind a busy engine."""
        if self._staged is not None:
            return
        step = self._queue.step(self._clock.now_s, engine_idle=self._running is None)
        self._expired += len(step.expired)
        if step.batch is None:
            return
        if self._running is not None:
            self._staged = step.batch
            return
        self._start(step.batch)
        self._dispatch()

    def _start(self, batch: Batch[None]) -> None:
        seconds = self._gpu.execute(self._model, batch.images)
        count, total_s = self._batches.get(batch.images, (0, 0.0))
        self._batches[batch.images] = count + 1, total_s + seconds
        self._running, self._done_s = batch, self._clock.now_s + seconds

    def _finish(self) -> None:
        assert self._running is not None, "a batch was running"  # noqa: S101
        now_s = self._clock.now_s
        self._latencies_ms += ((now_s - piece.request.arrival_s) * 1e3 for piece in self._running.slices)
        staged, self._running, self._staged, self._done_s = self._staged, None, None, math.inf
        if staged is not None:
            self._start(staged)


def _ending(arrivals: Iterable[float]) -> Iterator[float]:
    yield from arrivals
    while True:
        yield math.inf
