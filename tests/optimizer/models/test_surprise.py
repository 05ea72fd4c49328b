"""Curiosity and hope follow from how far off guesses were."""

from __future__ import annotations

import pytest

from optimizer.models.surprise import Hope, Surprise


def learned(error: float, unknown: float = 1.0, visits: int = 20) -> float:
    surprise = Surprise()
    for _ in range(visits):
        surprise.observe(error, unknown)
    return surprise.share


def test_before_anything_was_tried_it_is_curious() -> None:
    assert Surprise().share == 0.04


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_good_guesses_leave_little_to_find(sign: float) -> None:
    assert learned(sign * 0.005) == pytest.approx(0.007, abs=0.001)
    assert learned(sign * 0.005) < learned(sign * 0.02) < learned(sign * 0.3) == 0.04


def test_settings_known_before_say_nothing() -> None:
    assert learned(0.001, unknown=0.0) == pytest.approx(0.04)
    assert learned(0.001, unknown=0.1) > learned(0.001)


def hoped(measured_s: float, unknown: float = 1.0, visits: int = 20) -> float:
    """After visits to settings where 2 s were expected and no less than 1 s was possible."""
    hope = Hope()
    for _ in range(visits):
        hope.observe(2.0, 1.0, measured_s, unknown)
    return hope.share


def test_hope_goes_half_of_the_way_at_first_and_then_as_far_as_was_seen_and_a_little_more() -> None:
    assert Hope().share == 0.5
    assert hoped(1.6) == pytest.approx(0.6, abs=0.01)
    assert hoped(1.0) > 0.98 > hoped(1.4) > hoped(1.8) > hoped(2.0)


def test_where_batches_took_no_less_than_expected_there_is_nothing_to_hope_for() -> None:
    assert hoped(3.0) == hoped(2.0) < 0.02


def test_settings_known_before_and_no_time_at_all_say_nothing_of_hope() -> None:
    assert hoped(2.0, unknown=0.0) == hoped(0.0) == 0.5


def test_a_hope_that_is_exported_is_the_same_again_and_nonsense_is_refused() -> None:
    hope, again = Hope(), Hope()
    hope.observe(2.0, 1.0, 1.9, 1.0)
    again.import_state(hope.export_state())
    assert again.share == hope.share != 0.5
    for nonsense in ([0.0, 0.0], [0.1, 0.2], [0.1, -0.1], [float("inf"), 0.1]):
        with pytest.raises(ValueError, match="expected a way"):
            again.import_state(nonsense)
    assert again.share == hope.share
