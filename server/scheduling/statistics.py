"""Cumulative statistics of one model, with the protocol's meaning: plain counters, cheap to write."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.scheduling.batch_assembly import Timing


@dataclass(slots=True)
class Tally:
    """How often, and how many nanoseconds in all."""

    count: int = 0
    ns: int = 0

    def add(self, count: int, ns: int) -> None:
        """Add `count` events that took `ns` nanoseconds together."""
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class BatchStatistics:
    """Executions of one batch size: each batch counts once."""

    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class ModelStatistics:
    """Counters since the model was loaded.

    The tallies count requests, each with the full time of the batches that it was part of. `fail` holds every
    request that was answered with an error, those in `reject_count` (turned away when offered) and
    `expired_count` (deadline passed while queued) included, but not those in `cancel_count`.
    `inference_count` counts answered images, `execution_count` batches that ran. `last_inference_ms` is
    wall-clock time since the epoch, 0 before the first batch. `batch_stats` is keyed by executed batch size.
    """

    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)
    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    reject_count: int = 0
    expired_count: int = 0
    cancel_count: int = 0
    batch_stats: dict[int, BatchStatistics] = field(default_factory=dict)

    def succeeded(self, images: int, latency_ns: int, timing: Timing) -> None:
        """Count one answered request."""
        self.inference_count += images
        self.success.add(1, latency_ns)
        self.queue.add(1, timing.queue_ns)
        self.compute_input.add(1, timing.compute_input_ns)
        self.compute_infer.add(1, timing.compute_infer_ns)
        self.compute_output.add(1, timing.compute_output_ns)

    def executed(self, images: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count one batch that ran."""
        self.execution_count += 1
        stats = self.batch_stats.get(images)
        if stats is None:
            stats = self.batch_stats[images] = BatchStatistics()
        stats.compute_input.add(1, input_ns)
        stats.compute_infer.add(1, infer_ns)
        stats.compute_output.add(1, output_ns)


def as_ns(seconds: float) -> int:
    """Convert a difference of two clock readings; 0 when the clock went backwards between them."""
    return max(0, int(seconds * 1e9))
