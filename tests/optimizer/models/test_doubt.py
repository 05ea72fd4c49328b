"""How far a guess about times is trusted."""

from __future__ import annotations

import pytest

from optimizer.models.doubt import Doubt


def test_begins_half_way() -> None:
    assert Doubt().share == 0.5


def test_guesses_that_come_true_are_trusted_more_and_never_wholly() -> None:
    doubt = Doubt()
    before = doubt.share
    for _ in range(50):
        doubt.observe(1.0, 1.2, 1.0, unknown=1.0)
        assert doubt.share <= before
        before = doubt.share
    assert 0.0 < doubt.share <= 0.2


def test_guesses_that_were_as_bad_as_can_be_are_not_trusted() -> None:
    doubt = Doubt()
    for _ in range(50):
        doubt.observe(1.0, 1.2, 1.2, unknown=1.0)
    assert doubt.share == pytest.approx(1.0, abs=0.05)


def test_a_longer_way_says_more_than_a_short_one() -> None:
    short, long = Doubt(), Doubt()
    short.observe(1.0, 1.02, 1.0, unknown=1.0)
    long.observe(1.0, 1.5, 1.0, unknown=1.0)
    assert long.share < short.share


@pytest.mark.parametrize(("slowest_s", "unknown"), [(1.0, 1.0), (0.9, 1.0), (1.5, 0.0)])
def test_nothing_is_learned_where_nothing_was_unknown_or_open(slowest_s: float, unknown: float) -> None:
    doubt = Doubt()
    doubt.observe(1.0, slowest_s, 1.4, unknown=unknown)
    assert doubt.share == 0.5


def test_batches_that_took_no_time_teach_nothing() -> None:
    doubt = Doubt()
    doubt.observe(1.0, 1.5, 0.0, unknown=1.0)
    assert doubt.share == 0.5


def test_the_state_comes_back() -> None:
    doubt, again = Doubt(), Doubt()
    doubt.observe(1.0, 1.5, 1.0, unknown=1.0)
    again.import_state(doubt.export_state())
    assert again.share == doubt.share


@pytest.mark.parametrize(
    "state", [[], [1.0], [1.0, 2.0], [0.0, 0.0], [float("inf"), 1.0], [1.0, -0.5], ["x", 1]]
)
def test_another_state_is_refused(state: list[float]) -> None:
    doubt = Doubt()
    with pytest.raises((ValueError, TypeError)):
        doubt.import_state(state)
    assert doubt.share == 0.5
