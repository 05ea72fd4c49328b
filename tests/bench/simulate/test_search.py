from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulate.search import Trial, best_setting
from optimizer.operating_point import OperatingPoint

CLOCKS = tuple(range(300, 1500, 10))
Height = Callable[[float, float], float]


class Runner:
    """Runs a height over batch limit and clock index; no batch grows beyond `largest`."""

    def __init__(self, height: Height, largest: int = 10_000) -> None:
        self._height = height
        self._largest = largest
        self.ran: list[OperatingPoint] = []

    def __call__(self, points: list[OperatingPoint]) -> Iterable[Trial]:
        for point in points:
            self.ran.append(point)
            batch = min(point.batch_limit, self._largest)
            yield Trial((self._height(batch, CLOCKS.index(point.sm_clock_mhz or 0)),), batch)


def hill(batch: float, clock: float, height: float, width: float) -> Height:
    return lambda b, c: height - (abs(b - batch) / width) ** 2 - (abs(c - clock) / width) ** 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 128), st.integers(0, len(CLOCKS) - 1))
def test_one_hill_is_found_wherever_it_stands(batch: int, clock: int) -> None:
    runner = Runner(hill(batch, clock, 1.0, 50.0))
    assert best_setting(128, CLOCKS, runner) == OperatingPoint(batch, CLOCKS[clock])
    assert len(runner.ran) < 0.05 * 128 * len(CLOCKS)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(70, len(CLOCKS) - 1)),
    st.tuples(st.integers(70, 128), st.integers(0, 50)),
    st.booleans(),
)
def test_of_two_hills_the_higher_is_found(
    first: tuple[int, int], second: tuple[int, int], swapped: bool
) -> None:
    high, low = (second, first) if swapped else (first, second)
    tall, small = hill(*high, 1.0, 20.0), hill(*low, 0.6, 20.0)
    runner = Runner(lambda b, c: max(tall(b, c), small(b, c)))
    assert best_setting(128, CLOCKS, runner) == OperatingPoint(high[0], CLOCKS[high[1]])


@pytest.mark.parametrize("edge", [0, 17, 63, 119])
def test_a_cliff_beside_the_best_setting_does_not_hide_it(edge: int) -> None:
    """Below some clock everything is late; just above it, least energy is used."""
    runner = Runner(lambda b, c: -1000.0 if c < edge else 100.0 - c - abs(b - 33) / 100.0)
    assert best_setting(128, CLOCKS, runner) == OperatingPoint(33, CLOCKS[edge])


def test_limits_that_no_batch_reaches_are_not_run() -> None:
    runner = Runner(lambda b, c: b - c / 1000.0, largest=5)
    assert best_setting(128, CLOCKS, runner) == OperatingPoint(5, CLOCKS[0])
    assert {point.batch_limit for point in runner.ran} <= {*range(1, 10), 128}
    assert len(runner.ran) == len(set(runner.ran)), "nothing twice"


def test_a_peak_just_below_the_limits_that_change_nothing() -> None:
    """No batch grows beyond 16: the limits from there on are a plateau, and one below it is better."""
    runner = Runner(lambda b, c: c / 100.0 + (0.5 if b == 15 else -abs(b - 16) / 100.0), largest=16)
    assert best_setting(128, CLOCKS, runner) == OperatingPoint(15, CLOCKS[-1])


def test_a_grid_of_one_setting() -> None:
    assert best_setting(1, CLOCKS[:1], Runner(lambda b, c: 0.0)) == OperatingPoint(1, CLOCKS[0])


def test_progress_counts_the_settings_run() -> None:
    told: list[int] = []
    runner = Runner(hill(20, 60, 1.0, 50.0))
    best_setting(128, CLOCKS, runner, told.append)
    assert told[-1] == len(runner.ran)
