"""The pure parts: estimates, turns, the end of a warm-up."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare.estimates import coverage, estimate, halves_apart, quantile, thinned
from bench.compare.settling import Settling, SettlingRule
from bench.compare.turns import order


@pytest.mark.parametrize("count", range(1, 9))
def test_coverage_is_what_counting_all_outcomes_gives(count: int) -> None:
    """Each value is below the median or above it with even chances: count the outcomes that hold it."""
    for rank in range(1, (count + 1) // 2 + 1):
        outcomes = [sum(sides) for sides in itertools.product((0, 1), repeat=count)]
        held = Fraction(sum(rank <= below <= count - rank for below in outcomes), len(outcomes))
        assert coverage(count, rank) == pytest.approx(float(held))


def test_an_interval_is_as_narrow_as_its_coverage_allows() -> None:
    nine = estimate([9.0, 1.0, 5.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0])
    assert nine is not None
    assert (nine.value, nine.low, nine.high, nine.turns) == (5.0, 2.0, 8.0, 9)
    assert nine.coverage == pytest.approx(1 - 2 * 10 / 512)


@pytest.mark.parametrize(("count", "covered"), [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.96875)])
def test_few_turns_span_everything_and_say_what_that_covers(count: int, covered: float) -> None:
    found = estimate([float(value) for value in range(count)])
    assert found is not None
    assert (found.low, found.high, found.coverage) == (0.0, count - 1.0, covered)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    dice = random.Random(1)
    held = 0
    for _ in range(2000):
        found = estimate([dice.lognormvariate(0.0, 1.0) for _ in range(9)])  # its median is 1
        assert found is not None
        held += found.low <= 1.0 <= found.high
    assert 0.94 < held / 2000 < 0.98  # 0.961 is said


def test_no_values_make_no_estimate() -> None:
    assert estimate([]) is None


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=500), st.integers(1, 300))
def test_thinning_keeps_the_shape(values: list[float], most: int) -> None:
    kept = thinned(values, most)
    assert len(kept) == min(most, len(values))
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(values)


def test_thinned_quantiles_are_those_of_all() -> None:
    values = [float(value) for value in range(10_000)]
    for share in (0.5, 0.99):
        assert quantile(thinned(values, 200), share) == pytest.approx(quantile(values, share), rel=0.01)


def test_quantiles_are_values_that_occurred() -> None:
    values = [3.0, 1.0, 2.0]
    assert [quantile(values, share) for share in (0.0, 0.33, 0.5, 0.99, 1.0)] == [1.0, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("values", "apart"),
    [
        ([1.0, 1.0, 1.0], None),
        ([1.0, 1.0, 1.1, 1.1], 0.1),
        ([1.1, 1.1, 1.0, 1.0], 0.1),
        ([1.0, 1.0, 99.0, 1.0, 1.0], 0.0),  # the middle one belongs to neither half
    ],
)
def test_halves(values: list[float], apart: float | None) -> None:
    found = halves_apart(values)
    assert found is None if apart is None else found == pytest.approx(apart)


@given(st.integers(0, 40), st.integers(0, 30))
def test_every_turn_has_every_cell_once(count: int, turn: int) -> None:
    assert sorted(order(range(count), turn)) == list(range(count))


def test_turns_begin_elsewhere_and_change_neighbours() -> None:
    orders = [order(range(8), turn) for turn in range(8)]
    assert len({each[0] for each in orders}) >= 6
    followers = {each[each.index(3) + 1] for each in orders if each[-1] != 3}
    assert followers == {2, 4}


def settle(times_s: list[float], rule: SettlingRule) -> Settling:
    settling = Settling(rule)
    for time_s in times_s:
        if settling.over:
            break
        settling.add(time_s)
    return settling


def test_a_warm_up_ends_when_three_blocks_agree() -> None:
    rule = SettlingRule(block_s=0.3, tolerance=0.05, limit_s=100.0)
    falling = [1.0, 0.8, 0.6, 0.4, 0.2]
    settling = settle([value for value in falling for _ in range(3)] + [0.1] * 100, rule)
    assert settling.settled
    assert settling.batches == 15 + 9  # three blocks of three equal batches


def test_a_warm_up_that_never_settles_ends_at_its_limit() -> None:
    rule = SettlingRule(block_s=0.1, tolerance=0.05, limit_s=10.0)
    settling = settle([0.1 * 1.1**number for number in range(1000)], rule)
    assert settling.over
    assert not settling.settled
    assert settling.seconds >= 10.0


def test_slow_batches_are_run_at_least_three_times() -> None:
    settling = settle([60.0] * 10, SettlingRule(limit_s=1.0))
    assert settling.batches == 3
