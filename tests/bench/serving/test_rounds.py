from __future__ import annotations

import pytest

from bench.serving.rounds import Spread, best, in_turns, ratio


def test_in_turns_measures_every_subject_once_a_round_and_rotates_the_order() -> None:
    order: list[str] = []
    subjects = {name: (lambda name=name: order.append(name) or len(order)) for name in ("a", "b", "c")}
    found = in_turns(subjects, 3)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert found == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_ratio_pairs_the_rounds() -> None:
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(median=2.0, low=1.0, high=3.0)


def test_ratio_refuses_rounds_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_best_goes_by_the_median_not_by_a_lucky_round() -> None:
    assert best({"steady": [10.0, 10.0, 10.0], "lucky": [1.0, 1.0, 99.0]}) == "steady"


def test_spread_reads_well() -> None:
    assert str(Spread(1.234, 1.0, 2.0)) == "1.23 (1.00 .. 2.00)"
    assert str(Spread(12345.6, 12000.0, 13000.0)) == "12,346 (12,000 .. 13,000)"
