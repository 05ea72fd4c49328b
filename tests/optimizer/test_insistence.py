from __future__ import annotations

import itertools

from optimizer.insistence import PAUSES_STEPS, Insistence


def asked_at(in_force: list[bool]) -> list[int]:
    insistence = Insistence()
    return [step for step, holds in enumerate(in_force) if insistence.due(in_force=holds)]


def test_a_clock_in_force_is_not_asked_for_again() -> None:
    assert asked_at([True] * 100) == []


def test_one_that_is_not_is_asked_for_at_once_and_less_often_then() -> None:
    steps = asked_at([False] * 200)
    assert steps[0] == 0
    pauses = [later - earlier - 1 for earlier, later in itertools.pairwise(steps)]
    assert tuple(pauses[: len(PAUSES_STEPS)]) == PAUSES_STEPS
    assert set(pauses[len(PAUSES_STEPS) :]) == {PAUSES_STEPS[-1]}, "and never given up"


def test_once_it_was_in_force_patience_begins_anew() -> None:
    lost_again = 60
    steps = asked_at([False] * 20 + [True] * (lost_again - 20) + [False] * 10)
    assert [step - lost_again for step in steps if step >= lost_again] == [0, PAUSES_STEPS[0] + 1]
