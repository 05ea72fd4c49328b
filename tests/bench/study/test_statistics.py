from __future__ import annotations

import math

import pytest

pytest.importorskip("scikit_posthocs", reason="studies need the extra study")

from bench.study.statistics import cliffs_delta, correlation, difference, far_out, saving


def test_cliffs_delta_counts_pairs() -> None:
    pairs = [(a > b) - (a < b) for a in (1, 4, 5) for b in (2, 3, 4)]
    assert cliffs_delta([1, 4, 5], [2, 3, 4]) == pytest.approx(sum(pairs) / len(pairs))


def test_apart_means_one_and_alike_means_nought() -> None:
    assert cliffs_delta([3, 4], [1, 2]) == 1.0
    assert cliffs_delta([1, 2], [1, 2]) == 0.0


def test_ranks_that_agree_correlate_fully() -> None:
    assert correlation([1, 2, 3], [1, 10, 100]).rho == pytest.approx(1.0)


@pytest.mark.parametrize(("across", "up"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3])])
def test_too_little_or_nothing_changing_has_no_rho(across: list[float], up: list[float]) -> None:
    assert correlation(across, up).rho is None


def test_groups_that_lie_apart_differ_and_those_alike_do_not() -> None:
    far = [10.0 + n for n in range(8)]
    found = difference({"a": [float(n) for n in range(8)], "b": [n + 0.5 for n in range(8)], "c": far})
    assert found is not None
    p_values = {(pair.first, pair.second): pair.p_value for pair in found.pairs}
    assert found.p_value < 0.001
    assert p_values["a", "c"] < 0.01 < 0.5 < p_values["a", "b"]


def test_kruskal_wallis_against_a_worked_example() -> None:
    # Ranks 1, 2, 3 and 4, 5, 6: H = 12 / (6 * 7) * (6^2 / 3 + 15^2 / 3) - 3 * 7.
    found = difference({"a": [1, 2, 3], "b": [4, 5, 6]})
    assert found is not None
    assert found.h == pytest.approx(12 / 42 * (12 + 75) - 21)
    assert found.epsilon_squared == pytest.approx(found.h / 5)


def test_nothing_to_compare_is_no_difference() -> None:
    assert difference({"a": [1, 2]}) is None
    assert difference({"a": [1, 2], "b": [3]}) is None
    assert difference({"a": [1, 1], "b": [1, 1]}) is None


def test_a_saving_is_of_medians_and_within_its_interval() -> None:
    found = saving([10.0, 11.0, 12.0, 50.0], [2.0, 2.3, 2.6, 2.4])
    assert found.share == pytest.approx(1 - 2.35 / 11.5)
    assert found.low < found.share < found.high


def test_single_runs_have_no_interval() -> None:
    found = saving([10.0], [2.0])
    assert found.share == pytest.approx(0.8)
    assert math.isnan(found.low)


def test_fences_stand_off_the_quartiles() -> None:
    assert far_out([1, 2, 3, 4, 5, 11.1], fence=3.0) == [False] * 6
    assert far_out([1, 2, 3, 4, 5, 20], fence=3.0)[-1]


@pytest.mark.parametrize("values", [[1.0] * 5, [1.0] * 5 + [9.0], [1.0, 2.0, 90.0]])
def test_nothing_lies_beyond_fences_infinitely_far_off(values: list[float]) -> None:
    assert not any(far_out(values, math.inf))
