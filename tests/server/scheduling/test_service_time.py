from __future__ import annotations

import pytest

from server.scheduling.service_time import ServiceTimes


def learned(**batches: float) -> ServiceTimes:
    times = ServiceTimes()
    for size, seconds in batches.items():
        times.observe(int(size[1:]), seconds)
    return times


def test_nothing_is_known_at_first() -> None:
    assert ServiceTimes().predict(8) == 0.0


def test_between_known_sizes_linear() -> None:
    times = learned(b4=0.010, b8=0.018)
    assert [times.predict(n) for n in (4, 6, 8)] == pytest.approx([0.010, 0.014, 0.018])


def test_beyond_the_largest_along_the_slope() -> None:
    assert learned(b4=0.010, b8=0.018).predict(16) == pytest.approx(0.034)
    assert learned(b4=0.018, b8=0.010).predict(16) == pytest.approx(0.010)


def test_with_one_size_proportional() -> None:
    times = learned(b8=0.016)
    assert [times.predict(n) for n in (2, 8, 32)] == pytest.approx([0.004, 0.016, 0.064])


def test_the_shortest_is_unknown_then_the_least_and_slowly_follows_a_change() -> None:
    times = learned(b4=0.010)
    assert times.shortest(8) == float("inf")
    times.observe(4, 0.002)
    times.observe(4, 0.010)
    assert 0.002 <= times.shortest(4) < 0.003
    for _ in range(200):
        times.observe(4, 0.010)
    assert times.shortest(4) == pytest.approx(0.010)


def test_follows_a_change() -> None:
    times = learned(b4=0.010)
    for _ in range(40):
        times.observe(4, 0.015)
    assert times.predict(4) == pytest.approx(0.015, rel=1e-3)


def test_noise_is_averaged() -> None:
    times = learned(b4=0.010)
    times.observe(4, 0.014)
    assert 0.010 < times.predict(4) < 0.012


def test_a_warm_up_is_forgotten_at_once() -> None:
    times = learned(b4=5.0)
    times.observe(4, 0.010)
    assert times.predict(4) == pytest.approx(0.010)


def test_doubt_fades_the_prediction_until_the_next_batch() -> None:
    times = learned(b4=1.0)
    for _ in range(20):
        times.doubt()
    assert times.predict(4) < 0.02
    times.observe(4, 1.0)
    assert times.predict(4) == pytest.approx(1.0)
