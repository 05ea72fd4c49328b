from __future__ import annotations

import math

import pytest

from optimizer.policies.both_ways import BothWays


def measured(delayed: float, at_once: float, windows: int = 4) -> BothWays:
    ways = BothWays()
    ways.ask(1000, 500.0)
    for _ in range(windows):
        ways.observe(1000, delayed, delayed=True)
        ways.observe(1000, at_once, delayed=False)
    return ways


def test_the_way_without_a_delay_has_its_turns_after_the_other_had_its_own() -> None:
    ways = BothWays()
    ways.ask(1000, 500.0)
    assert not ways.untried
    for _ in range(4):
        ways.observe(1000, 1.0, delayed=True)
    assert ways.untried
    for _ in range(4):
        ways.observe(1000, 1.0, delayed=False)
    assert not ways.untried


@pytest.mark.parametrize(
    ("delayed", "at_once", "pays"), [(1.0, 1.1, True), (1.1, 1.0, False), (-2.0, -1.0, True)]
)
def test_whether_waiting_pays_is_what_was_measured(delayed: float, at_once: float, pays: bool) -> None:
    assert measured(delayed, at_once).pays is pays


def test_nothing_is_said_before_both_had_their_turns() -> None:
    assert measured(1.0, 2.0, windows=2).pays is None


def test_old_measurements_fade() -> None:
    ways = measured(1.0, 2.0)
    for _ in range(60):
        ways.observe(1000, 4.0, delayed=True)
    assert ways.pays is False


def test_another_clock_or_load_is_another_question_but_a_little_more_load_is_not() -> None:
    for clock_mhz, rate_per_s, same in (
        (1000, 550.0, True),
        (1000, 450.0, True),
        (1000, 600.0, False),
        (990, 500.0, False),
    ):
        ways = measured(1.0, 2.0)
        ways.ask(clock_mhz, rate_per_s)
        assert (ways.pays is True) == same


def test_what_was_measured_at_another_clock_or_not_at_all_is_no_answer() -> None:
    ways = BothWays()
    ways.ask(1000, 500.0)
    for _ in range(9):
        ways.observe(900, 1.0, delayed=True)
        ways.observe(1000, math.nan, delayed=True)
    assert not ways.untried
    assert ways.pays is None
