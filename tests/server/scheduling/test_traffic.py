from __future__ import annotations

import numpy as np
import pytest

from optimizer.telemetry import LATEST_BATCHES, BatchTimes, Traffic
from server.scheduling.traffic import TrafficRecorder


def test_nothing_happened() -> None:
    assert TrafficRecorder().take(100.0, 0) == Traffic()


def test_quantiles_and_late_images_count_images() -> None:
    recorder = TrafficRecorder()
    dice = np.random.default_rng(7)
    latencies_ms, images = dice.gamma(2.0, 30.0, 500), dice.integers(1, 9, 500)
    for latency_ms, count in zip(latencies_ms, images, strict=True):
        recorder.answered(int(count), float(latency_ms) / 1e3)
    traffic = recorder.take(slo_ms=100.0, queued=0)
    each = np.repeat(latencies_ms, images)
    assert traffic.completed == each.size
    assert traffic.late == (each > 100.0).sum()
    quantiles = np.quantile(each, (0.5, 0.95, 0.99), method="inverted_cdf")
    assert (traffic.latency_p50_ms, traffic.latency_p95_ms, traffic.latency_p99_ms) == pytest.approx(
        tuple(quantiles)
    )


def test_a_latency_at_the_slo_is_in_time() -> None:
    recorder = TrafficRecorder()
    recorder.answered(1, 0.125)
    assert recorder.take(slo_ms=125.0, queued=0).late == 0


def test_batches_by_size() -> None:
    recorder = TrafficRecorder()
    for size, seconds in ((4, 0.5), (1, 0.25), (4, 0.25)):
        recorder.executed(size, seconds)
    assert recorder.take(100.0, 0).batches == {4: BatchTimes(2, 0.75), 1: BatchTimes(1, 0.25)}


def test_requests_are_counted_by_their_images() -> None:
    recorder = TrafficRecorder()
    for images in (1, 1, 4):
        recorder.came(images)
    taken = recorder.take(100.0, 0)
    assert (taken.arrived, taken.requests, taken.together, taken.largest_request) == (6, 3, 18, 4)


def test_the_last_few_batches_outlive_the_taking() -> None:
    recorder = TrafficRecorder()
    recorder.executed(2, 9.0)
    for number in range(LATEST_BATCHES):
        recorder.executed(4 if number % 2 else 1, 0.5)
    recorder.take(100.0, 0)
    half = LATEST_BATCHES // 2
    assert recorder.latest() == {1: BatchTimes(half, 0.5 * half), 4: BatchTimes(half, 0.5 * half)}


def test_taking_starts_anew() -> None:
    recorder = TrafficRecorder()
    recorder.came(3)
    recorder.answered(3, 9.0)
    recorder.executed(3, 1.0)
    recorder.take(100.0, 0)
    assert recorder.take(100.0, 5) == Traffic(queued=5)


def test_memory_is_bounded_when_nobody_collects() -> None:
    recorder = TrafficRecorder(latencies_kept=100)
    for number in range(1000):
        recorder.answered(2, 1.0 if number % 4 == 0 else 0.0)
    assert len(recorder._latencies_s) == len(recorder._weights) == 100
    traffic = recorder.take(slo_ms=500.0, queued=0)
    assert (traffic.completed, traffic.late) == (2000, 500)
