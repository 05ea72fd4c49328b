"""One place that counts what happens to requests, for the protocol's statistics and for the governor."""

from __future__ import annotations

import time

from optimizer.telemetry import SoFar, Traffic
from server.scheduling.batch_assembly import CallRequest, Timing
from server.scheduling.batch_run import Outcome
from server.scheduling.statistics import ModelStatistics, as_ns
from server.scheduling.traffic import TrafficRecorder


class Accounts:
    """Counts requests and batches. Every request arrives once and then has exactly one of the other fates."""

    def __init__(self) -> None:
        self.statistics = ModelStatistics()
        self._traffic = TrafficRecorder()

    def take_traffic(self, slo_ms: float, queued: int) -> Traffic:
        """Return the traffic since the previous call."""
        return self._traffic.take(slo_ms, queued)

    def so_far(self) -> SoFar:
        """Return the last few batches that ran, and the images that came since traffic was taken."""
        return SoFar(self._traffic.latest(), self._traffic.arrived)

    def arrived(self, images: int) -> None:
        """Somebody asks for this many images."""
        self._traffic.came(images)

    def refused(self, request: CallRequest) -> None:
        """Turned away when offered."""
        self._traffic.refused += request.images
        self.statistics.reject_count += 1
        self.statistics.fail.add(1, 0)

    def expired(self, request: CallRequest, now_s: float) -> None:
        """The deadline passed, or became hopeless, in the queue."""
        self._traffic.expired += request.images
        self.statistics.expired_count += 1
        self.statistics.fail.add(1, as_ns(now_s - request.arrival_s))

    def failed(self, request: CallRequest, now_s: float) -> None:
        """The engine failed, or the model was closed."""
        self._traffic.failed += request.images
        self.statistics.fail.add(1, as_ns(now_s - request.arrival_s))

    def cancelled(self, request: CallRequest) -> None:
        """Withdrawn by its client."""
        self._traffic.cancelled += request.images
        self.statistics.cancel_count += 1

    def succeeded(self, request: CallRequest, timing: Timing, now_s: float) -> None:
        """Got its answer."""
        latency_s = max(0.0, now_s - request.arrival_s)
        self._traffic.answered(request.images, latency_s)
        self.statistics.succeeded(request.images, as_ns(latency_s), timing)

    def executed(self, outcome: Outcome, output_ns: int) -> None:
        """A batch ran and returned what it should."""
        input_ns, infer_ns = outcome.times_ns
        self._traffic.executed(outcome.images, infer_ns / 1e9)
        self.statistics.executed(outcome.images, input_ns, infer_ns, output_ns)
        self.statistics.last_inference_ms = time.time_ns() // 1_000_000
