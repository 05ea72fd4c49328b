"""Curiosity follows from how far off guesses were."""

from __future__ import annotations

import pytest

from optimizer.models.surprise import Surprise


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
