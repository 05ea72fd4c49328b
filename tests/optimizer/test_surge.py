"""The gauge tells a surge from chance, and its wire is tripped by neither too much nor too little."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizer.surge import SurgeGauge, Tripwire, surge_wire

EXPECTED_PER_S, BEARABLE_PER_S = 250.0, 900.0


def gauge(rate_per_s: float, burst_images: float) -> SurgeGauge:
    made = SurgeGauge()
    made.arm(Tripwire(1000, rate_per_s, burst_images))
    return made


def tripped_at(made: SurgeGauge, times_s: np.ndarray) -> float | None:
    return next((float(at) for at in times_s if made.arrive(1, float(at))), None)


def poisson(rate_per_s: float, duration_s: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(0.0, duration_s, random.poisson(rate_per_s * duration_s)))


def test_an_unarmed_gauge_is_never_tripped() -> None:
    made = SurgeGauge()
    assert not any(made.arrive(1000, 0.0) for _ in range(100))


def test_a_wire_without_a_burst_watches_no_arrivals() -> None:
    made = SurgeGauge()
    made.arm(Tripwire(3))
    assert not any(made.arrive(1000, 0.0) for _ in range(100))


def test_what_comes_at_the_rate_leaks_away() -> None:
    made = gauge(rate_per_s=10.0, burst_images=2.0)
    assert not any(made.arrive(1, at / 10.0) for at in range(1000))


def test_what_comes_faster_piles_up_to_the_burst() -> None:
    made = gauge(rate_per_s=10.0, burst_images=5.0)
    assert [made.arrive(2, 0.0), made.arrive(3, 0.0), made.arrive(1, 0.0)] == [False, False, True]


def test_a_lull_earns_no_credit_for_a_surge_after_it() -> None:
    made = gauge(rate_per_s=10.0, burst_images=3.0)
    made.arrive(1, 0.0)
    assert [made.arrive(2, 100.0), made.arrive(2, 100.0)] == [False, True]


def test_disarmed_it_forgets() -> None:
    made = gauge(rate_per_s=10.0, burst_images=3.0)
    made.arrive(3, 0.0)
    made.disarm()
    made.arm(Tripwire(1000, 10.0, 3.0))
    assert not made.arrive(3, 0.0)


def test_chance_seldom_trips_the_wire() -> None:
    """Made for once in a hundred seconds; 10 runs of 100 s in which it would then be tripped 6 times."""
    wire = surge_wire(50, EXPECTED_PER_S, BEARABLE_PER_S, 1.0)
    false = 0
    for seed in range(10):
        made = SurgeGauge()
        made.arm(wire)
        false += tripped_at(made, poisson(EXPECTED_PER_S, 100.0, seed)) is not None
    assert false <= 6


@pytest.mark.parametrize("times", [1.0, 1.5, 3.0])
def test_a_surge_trips_it_within_a_fraction_of_a_second(times: float) -> None:
    wire = surge_wire(50, EXPECTED_PER_S, BEARABLE_PER_S, 1.0)
    for seed in range(10):
        made = SurgeGauge()
        made.arm(wire)
        at_s = tripped_at(made, poisson(times * BEARABLE_PER_S, 5.0, seed))
        assert at_s is not None
        assert at_s < 0.2


def test_the_wire_lies_between_what_is_expected_and_what_can_be_borne() -> None:
    wire = surge_wire(50, EXPECTED_PER_S, BEARABLE_PER_S, 1.0)
    assert wire.queued_images == 50
    assert EXPECTED_PER_S < wire.rate_per_s < BEARABLE_PER_S
    assert surge_wire(50, EXPECTED_PER_S, BEARABLE_PER_S, 2.0).burst_images == 2.0 * wire.burst_images


@pytest.mark.parametrize(("expected", "bearable"), [(0.0, 100.0), (100.0, 110.0), (100.0, 50.0)])
def test_what_cannot_be_told_apart_is_left_to_the_queue(expected: float, bearable: float) -> None:
    assert surge_wire(50, expected, bearable, 1.0) == Tripwire(50, math.inf, math.inf)
