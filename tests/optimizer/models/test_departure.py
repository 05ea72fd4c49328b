"""What the first batches say of a prediction: a level, and how far else it may be off."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizer.models.departure import departure
from optimizer.telemetry import BatchTimes

SIZES = (2, 4, 8, 16)
LOG_SIZES, LOG_CLOCKS = np.log(np.array(SIZES, float)), np.log(np.array([500.0, 1000.0, 1500.0]))
PREDICTED_S = 1e-3 + 1e-4 * np.array(SIZES)
STATED = 0.03


def ran(seconds: np.ndarray, count: int = 20) -> dict[int, BatchTimes]:
    return {size: BatchTimes(count, count * float(one)) for size, one in zip(SIZES, seconds, strict=True)}


def doubt(batches: dict[int, BatchTimes]) -> np.ndarray:
    expected_s = 1e-3 + 1e-4 * np.array(list(batches), float)
    return departure(batches, expected_s, 1500.0).doubt(LOG_SIZES, LOG_CLOCKS, STATED)


def test_batches_that_take_what_was_predicted_add_no_doubt() -> None:
    assert doubt(ran(PREDICTED_S)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("factor", [0.5, 0.98, 1.02, 2.0])
def test_one_factor_for_all_is_a_level(factor: float) -> None:
    found = departure(ran(factor * PREDICTED_S), PREDICTED_S, 1500.0)
    assert found.level == pytest.approx(math.log(factor))
    assert found.bend == pytest.approx(0.0, abs=1e-12)


def test_only_a_level_beyond_what_was_stated_is_a_reason_for_doubt() -> None:
    assert doubt(ran(1.02 * PREDICTED_S)).max() < 1e-12
    small, large = doubt(ran(1.2 * PREDICTED_S)), doubt(ran(0.5 * PREDICTED_S))
    assert 0.0 < small.max() < large.max()


def test_the_further_away_the_more_is_doubted() -> None:
    found = doubt(ran(2.0 * PREDICTED_S))
    assert (np.diff(found, axis=1) < 0.0).all(), "it ran at the highest clock"
    assert found[0, 0] > found[1, 0] < found[-1, 0]


def test_errors_that_grow_with_the_size_are_doubted_at_other_clocks_above_all() -> None:
    found = departure(ran(PREDICTED_S * np.array(SIZES) ** 0.1), PREDICTED_S, 1500.0)
    assert found.bend == pytest.approx(0.1, rel=0.05)
    doubted = found.doubt(LOG_SIZES, LOG_CLOCKS, 10.0)
    by_clock = doubted[:, 0] - doubted[:, -1]
    assert by_clock == pytest.approx(3.0 * found.bend * math.log(3.0))


def test_few_batches_say_little_of_a_bend() -> None:
    bent_s = PREDICTED_S * np.array(SIZES) ** 0.1
    few, many = (departure(ran(bent_s, count), PREDICTED_S, 1500.0) for count in (1, 100))
    assert 0.0 < few.bend < many.bend


def test_batches_of_one_size_show_no_bend() -> None:
    found = departure({8: BatchTimes(20, 20 * 0.0027)}, np.array([1.8e-3]), 1500.0)
    assert found.bend == 0.0
    assert found.level == pytest.approx(math.log(1.5))
    assert found.log_size == pytest.approx(math.log(8.0))
