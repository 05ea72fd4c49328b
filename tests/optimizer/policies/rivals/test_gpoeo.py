from __future__ import annotations

from fluid_plant import window
from hypothesis import given
from hypothesis import strategies as st

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.rivals.golden_section import GoldenSection
from optimizer.policies.rivals.gpoeo import GpoeoPolicy
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes, Window

CLOCKS = tuple(range(1000, 2001, 20))
GRID = OperatingGrid((1, 8), CLOCKS)


def predicted_s(batch: int, clock_mhz: float) -> float:
    """Half of it follows the clock: 4.5 % longer at 1835 MHz."""
    return 0.008 * (0.5 + 0.5 * 2000 / clock_mhz)


SWEEP = OfflineSweep(predicted_s, lambda batch, mhz: 50.0 + 150.0 * (mhz / 2000) ** 3, 20.0, 300.0)


def at(point: OperatingPoint, watts: float, slower: float = 1.0) -> Window:
    assert point.sm_clock_mhz is not None
    seconds = slower * 50 * predicted_s(8, point.sm_clock_mhz)
    return window(point, images=400, watts=watts, batches={8: BatchTimes(50, seconds)})


class Card:
    """Draws power by a curve of its own, so that the prediction can be wrong."""

    def __init__(self, best_mhz: int) -> None:
        self.best_mhz = best_mhz
        self.policy = GpoeoPolicy(GRID, Targets(), SWEEP)
        self.point = GRID.default
        self.scale = 1.0

    def run(self, seconds: int) -> list[int]:
        clocks = []
        for _ in range(seconds):
            watts = self.scale * (100.0 + abs((self.point.sm_clock_mhz or 0) - self.best_mhz) / 10.0)
            self.point = self.policy.decide(at(self.point, watts), Targets()).point
            clocks.append(self.point.sm_clock_mhz or 0)
        return clocks


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(-60, 120), st.integers(1, 5))
def test_golden_section_finds_the_bottom_of_any_valley(low: int, width: int, bottom: int, slope: int) -> None:
    search, asked = GoldenSection(low, low + width), []
    while (number := search.ask()) is not None:
        asked.append(number)
        search.tell(number, abs(number - bottom) * (slope if number > bottom else 1))
    assert search.best == min(max(low, bottom), low + width)
    assert len(asked) == len(set(asked)) <= 14, "a few of up to 61"
    assert all(low <= number <= low + width for number in asked)


def test_it_measures_4_s_after_4_s_and_goes_to_the_predicted_clocks_first() -> None:
    card = Card(best_mhz=1900)
    clocks = card.run(8)
    assert clocks[:7] == [2000] * 7, "4 s to settle, 4 s to measure"
    # Predicted: 1840 MHz spends the least of the clocks within 4.5 %. Searched: 1640 .. 2000 MHz, of which
    # the golden section asks for the 7th of 18 steps first.
    assert clocks[7] == 1640 + 7 * 20


def test_it_finds_the_clock_that_spends_least_by_measurement_and_stays() -> None:
    card = Card(best_mhz=1900)
    card.run(150)
    assert set(card.run(50)) == {1900}


def test_it_never_settles_on_a_clock_that_loses_too_much_time() -> None:
    card = Card(best_mhz=1700)
    card.run(150)
    assert set(card.run(50)) == {1840}, "1840 MHz is 4.3 % slower than 2000, 1820 MHz 4.9 %"


def test_it_searches_anew_once_the_energy_of_an_image_has_changed_for_good() -> None:
    card = Card(best_mhz=1900)
    card.run(150)
    card.scale = 1.1
    assert set(card.run(30)) == {1900}, "a tenth is no change"
    card.scale, card.best_mhz = 1.5, 1960
    card.run(150)
    assert set(card.run(30)) == {1960}
