"""How evenly requests come is learned from how few wait, and never believed on little evidence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.models.evenness import EvennessModel
from optimizer.telemetry import BatchTimes, Traffic

BATCH_S = 0.01


def window(times_s: NDArray[np.float64]) -> Traffic:
    """One image at a time, in a second."""
    free_s, latencies_ms = 0.0, []
    for time_s in times_s.tolist():
        free_s = max(free_s, time_s) + BATCH_S
        latencies_ms.append(1e3 * (free_s - time_s))
    p50, p95, p99 = np.quantile(latencies_ms, (0.5, 0.95, 0.99)).tolist()
    return Traffic(
        arrived=times_s.size,
        requests=times_s.size,
        together=times_s.size,
        largest_request=1,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        batches={1: BatchTimes(times_s.size, BATCH_S * times_s.size)},
    )


def evenly(rate_per_s: int) -> Traffic:
    return window(np.arange(rate_per_s) / rate_per_s)


def by_chance(rate_per_s: int, random: np.random.Generator) -> Traffic:
    return window(np.sort(random.uniform(0.0, 1.0, max(1, random.poisson(rate_per_s)))))


@pytest.mark.parametrize("rate_per_s", [3, 10, 30, 60])
def test_by_chance_nothing_is_believed_but_chance(rate_per_s: int) -> None:
    random, model, shapes = np.random.default_rng(rate_per_s), EvennessModel(), []
    for _ in range(300):
        model.observe(by_chance(rate_per_s, random), 1.0, 0.0)
        shapes.append(model.shape)
    assert np.mean(np.array(shapes) > 1.2) < 0.05


def test_evenly_spaced_requests_show_with_time() -> None:
    model = EvennessModel()
    model.observe(evenly(10), 1.0, 0.0)
    assert model.shape == 1.0
    for _ in range(40):
        model.observe(evenly(10), 1.0, 0.0)
    assert model.shape > 1.3
    assert model.dispersion < 0.7


def test_what_was_even_and_is_no_more_is_forgotten_at_once() -> None:
    random, model = np.random.default_rng(1), EvennessModel()
    for _ in range(60):
        model.observe(evenly(50), 1.0, 0.0)
    assert model.shape > 3.0
    model.observe(by_chance(50, random), 1.0, 0.0)
    assert model.shape < 1.2


def test_nothing_is_learned_where_batches_gather() -> None:
    model = EvennessModel()
    for _ in range(60):
        model.observe(evenly(50), 1.0, 0.02)
    assert model.shape == 1.0
