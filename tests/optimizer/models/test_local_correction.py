from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.models.local_correction import LocalCorrection

Array = NDArray[np.float64]

SIZES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
CLOCKS = np.array([500.0, 700.0, 900.0, 1000.0, 1100.0, 1500.0])
PREDICTED = 0.01
ROW, COLUMN = 3, 3


def predict(batches: Array, clocks: Array) -> Array:
    return np.full_like(batches, PREDICTED)


def measured(times: int = 1, ratio: float = 2.0) -> LocalCorrection:
    """Batches of 8 at 1000 MHz took `ratio` times what is predicted."""
    correction = LocalCorrection(SIZES, CLOCKS)
    for _ in range(times):
        correction.observe(8.0, 1000.0, ratio * PREDICTED)
    return correction


def test_where_nothing_was_measured_the_model_stands() -> None:
    factor, known = LocalCorrection(SIZES, CLOCKS).table(predict)
    assert factor.shape == known.shape == (SIZES.size, CLOCKS.size)
    assert (factor == 1.0).all()
    assert (known == 0.0).all()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_at_a_measured_setting_the_measurement_all_but_replaces_the_model(ratio: float) -> None:
    once, known_once = measured(1, ratio).table(predict)
    often, known_often = measured(20, ratio).table(predict)
    assert once[ROW, COLUMN] == pytest.approx(ratio ** (1.0 / 1.3))
    assert often[ROW, COLUMN] == pytest.approx(ratio ** (4.0 / 4.3))
    assert 0.4 < known_once[ROW, COLUMN] < known_often[ROW, COLUMN] < 1.0


def test_it_fades_with_distance_in_batch_and_in_clock() -> None:
    factor, known = measured(20).table(predict)
    for table in (factor, known):
        for line in (
            table[ROW:, COLUMN],
            table[ROW::-1, COLUMN],
            table[ROW, COLUMN:],
            table[ROW, COLUMN::-1],
        ):
            assert (np.diff(line) < 0.0).all()
    assert factor[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert known[-1, -1] == pytest.approx(0.0, abs=1e-6)


def test_the_model_is_asked_where_it_was_measured() -> None:
    correction = LocalCorrection(SIZES, CLOCKS)
    for _ in range(20):
        correction.observe(8.0, 1000.0, 16.0)
        correction.observe(32.0, 500.0, 64.0)
    factor, _ = correction.table(lambda batches, clocks: 2.0 * batches)
    assert factor == pytest.approx(np.ones_like(factor)), "all measurements agree with it"


def test_a_single_wild_measurement_is_bounded_and_forgotten() -> None:
    factor, _ = measured(20, ratio=1e6).table(predict)
    assert factor.max() <= 3.0
    correction = measured(20, ratio=1.0)
    correction.observe(8.0, 1000.0, 2.0 * PREDICTED)
    shaken = correction.table(predict)[0][ROW, COLUMN]
    assert 1.0 < shaken < 1.4
    for _ in range(20):
        correction.observe(8.0, 1000.0, PREDICTED)
    assert correction.table(predict)[0][ROW, COLUMN] == pytest.approx(1.0, abs=0.01)


def test_a_window_of_few_batches_moves_it_less() -> None:
    little, much = measured(20, ratio=1.0), measured(20, ratio=1.0)
    little.observe(8.0, 1000.0, 2.0 * PREDICTED, 0.1)
    much.observe(8.0, 1000.0, 2.0 * PREDICTED, 1.0)
    assert 1.0 < little.table(predict)[0][ROW, COLUMN] < much.table(predict)[0][ROW, COLUMN]


@pytest.mark.parametrize(
    "weaken", [lambda c: c.forget(0.1), lambda c: [c.age() for _ in range(500)]], ids=["forget", "age"]
)
def test_what_is_old_or_doubted_counts_less(weaken: Callable[[LocalCorrection], object]) -> None:
    correction = measured(20)
    before, known_before = correction.table(predict)
    weaken(correction)
    after, known_after = correction.table(predict)
    assert 1.0 < after[ROW, COLUMN] < before[ROW, COLUMN]
    assert known_after[ROW, COLUMN] < known_before[ROW, COLUMN]
    correction.forget(0.0)
    assert (correction.table(predict)[0] == 1.0).all()


def test_what_comes_after_doubt_counts_at_once() -> None:
    correction = measured(20, ratio=1.0)
    correction.forget(0.1)
    for _ in range(3):
        correction.observe(8.0, 1000.0, 1.5 * PREDICTED)
    assert correction.table(predict)[0][ROW, COLUMN] > 1.25


def test_only_so_much_is_kept_and_what_counts_most_stays() -> None:
    correction = measured(20)
    for batch in range(1, 65):
        for clock in range(500, 1501, 100):
            correction.observe(float(batch), float(clock), PREDICTED, 0.5)
    state = correction.state()
    assert 10 < len(state) <= 96
    settled = max(state, key=lambda cell: cell[3])
    assert settled[:2] == pytest.approx([8.0, 1000.0], rel=0.05)


def test_measurements_at_one_clock_may_come_together_or_one_by_one_or_not_at_all() -> None:
    measured_there = [(8.0, 2.0 * PREDICTED, 1.0), (8.3, PREDICTED, 0.5), (32.0, 3.0 * PREDICTED, 0.25)]
    together, one_by_one = measured(3), measured(3)
    together.observe_at(1005.0, measured_there)
    together.observe_at(700.0, [])
    for batch, value, weight in measured_there:
        one_by_one.observe(batch, 1005.0, value, weight)
    assert together.state() == one_by_one.state()
    np.testing.assert_array_equal(together.table(predict), one_by_one.table(predict))


def test_a_cell_that_moved_counts_where_it_then_lies() -> None:
    moved = measured(2)
    moved.table(predict)
    moved.observe(8.3, 1005.0, 1.5 * PREDICTED)
    anew = LocalCorrection(SIZES, CLOCKS)
    anew.restore(moved.state())
    np.testing.assert_array_equal(moved.table(predict), anew.table(predict))


def test_what_is_kept_survives_json() -> None:
    correction = measured(3)
    correction.observe(2.0, 500.0, 0.5 * PREDICTED, 0.25)
    restored = measured(5, ratio=0.5)
    restored.restore(json.loads(json.dumps(correction.state())))
    assert restored.state() == correction.state()
    for one, other in zip(restored.table(predict), correction.table(predict), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(
    "cell",
    [
        [8.0, 1000.0, 0.01],
        [8.0, 1000.0, -0.01, 1.0],
        [0.0, 1000.0, 0.01, 1.0],
        [8.0, float("inf"), 0.01, 1.0],
        [8.0, 1000.0, 0.01, float("nan")],
        [8.0, 1000.0, "much", 1.0],
        [8.0, 1000.0, 0.01, 1.0, 0.0],
        [8.0, 1000.0, 0.01, 1.0, 1.1],
        8.0,
    ],
)
def test_what_was_never_measured_is_refused_and_changes_nothing(cell: Any) -> None:  # noqa: ANN401  # whatever a damaged file holds
    correction = measured(3)
    with pytest.raises((ValueError, TypeError)):
        correction.restore([[2.0, 500.0, 0.01, 1.0], cell])
    assert correction.state() == measured(3).state()


@pytest.mark.parametrize("idle", [0.0, 10.0, 30.0])
def test_a_mean_over_pauses_is_found_again_whatever_is_believed_of_these(idle: float) -> None:
    """60 W while batches ran for half of the time: what they drew depends on what was drawn in between."""

    def predicted(batches: Array, clocks: Array) -> Array:
        return np.full_like(batches, 70.0)

    correction = LocalCorrection(SIZES, CLOCKS)
    for _ in range(40):
        correction.observe(8.0, 1000.0, 60.0, busy=0.5)
    running = 70.0 * correction.factor(predicted, idle)[ROW, COLUMN]
    assert 0.5 * idle + 0.5 * running == pytest.approx(60.0, rel=0.04)
    anew = LocalCorrection(SIZES, CLOCKS)
    anew.restore(json.loads(json.dumps(correction.state())))
    assert anew.factor(predicted, idle) == pytest.approx(correction.factor(predicted, idle))


def test_a_row_of_a_large_table_does_not_depend_on_the_others() -> None:
    sizes, clocks = np.arange(1.0, 129.0), np.arange(500.0, 1500.0, 4.0)
    large, alone = LocalCorrection(sizes, clocks), LocalCorrection(sizes[40:41], clocks)
    for step in range(90):
        for correction in (large, alone):
            correction.observe(1.0 + step, 500.0 + 11.0 * step, PREDICTED * (1.0 + 0.01 * step))
    for whole, part in zip(large.table(predict), alone.table(predict), strict=True):
        assert whole[40] == pytest.approx(part[0])
        assert not np.allclose(whole[41], part[0])
