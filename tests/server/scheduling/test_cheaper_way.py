"""Taking turns between two ways to run crowds, on drawn costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.cheaper_way import MOST_TURNS, SETTLING_IMAGES, TURN_IMAGES, TURN_S, CheaperWay, Way

US = 1e-6
Cost = Callable[[Way], float]


def costs(apart_us: float, together_us: float) -> Cost:
    """Seconds an image, by the way."""
    seconds = {Way.APART: apart_us * US, Way.TOGETHER: together_us * US}
    return seconds.__getitem__


def run(ways: CheaperWay, turns: int, cost: Cost, least_us: float = 100) -> Counter[Way]:
    """Run as many crowds as so many turns take of what costs the least; how many of them went which way."""
    gone: Counter[Way] = Counter()
    images = max(SETTLING_IMAGES, math.ceil(TURN_S / 8 / (least_us * US)))
    for _ in range(9 * turns):
        way = ways.way
        gone[way] += 1
        ways.ran(way, images, images * cost(way))
    return gone


@given(st.floats(1, 1000), st.floats(1.05, 20), st.booleans())
def test_the_cheaper_way_is_found_and_the_dearer_seldom_looked_at(
    least_us: float, times_dearer: float, apart_is_cheaper: bool
) -> None:
    least, most = (Way.APART, Way.TOGETHER) if apart_is_cheaper else (Way.TOGETHER, Way.APART)
    seconds = {least: least_us * US, most: least_us * times_dearer * US}
    ways = CheaperWay()
    run(ways, 2 * MOST_TURNS, seconds.__getitem__, least_us)
    gone = run(ways, 10 * (MOST_TURNS + 1), seconds.__getitem__, least_us)
    assert 0.95 < gone[least] / gone.total() < 1.0


def test_both_ways_are_measured_first() -> None:
    assert len(run(CheaperWay(), 2, costs(100, 100))) == 2


def test_what_is_clearly_dearer_is_looked_at_less_from_the_beginning() -> None:
    gone = {dearer_us: run(CheaperWay(), 30, costs(100, dearer_us)) for dearer_us in (105, 200)}
    assert gone[200][Way.TOGETHER] < gone[105][Way.TOGETHER]


def test_a_change_is_followed() -> None:
    ways = CheaperWay()
    run(ways, 200, costs(100, 150))
    run(ways, 200, costs(300, 150))
    gone = run(ways, 100, costs(300, 150))
    assert gone[Way.TOGETHER] > 0.9 * gone.total()


def test_what_else_runs_on_the_machine_does_not_mislead_for_long() -> None:
    """Every third turn takes up to five times as long as it should."""
    ways, chance, quiet = CheaperWay(), Random(4), costs(100, 140)

    def disturbed(way: Way) -> float:
        return quiet(way) * (chance.uniform(1, 5) if chance.random() < 1 / 3 else 1.0)

    run(ways, 100, disturbed)
    gone = run(ways, 1000, disturbed)
    assert gone[Way.APART] > 0.85 * gone.total()


def test_what_was_begun_the_other_way_before_the_turn_does_not_count() -> None:
    ways = CheaperWay()
    now = ways.way
    other = next(way for way in Way if way is not now)
    ways.ran(other, 10 * TURN_IMAGES, 1.0)
    assert ways.way is now


def test_what_the_other_way_left_over_does_not_count() -> None:
    """The first images of every turn cost nothing together, and three times as much apart."""
    ways, before, left = CheaperWay(), None, 0
    gone: Counter[Way] = Counter()
    for _ in range(40_000):
        way = ways.way
        left = SETTLING_IMAGES if way is not before else max(0, left - 16)
        before = way
        seconds = {Way.APART: 300 if left else 100, Way.TOGETHER: 0 if left else 110}[way] * US
        ways.ran(way, 16, 16 * seconds)
        gone[way] += 1
    assert gone[Way.APART] > 0.85 * gone.total()
