"""What can be chosen on a landscape over a machine that is known all over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fluid_plant import CLOCKS, GRID, IDLE_W, batch_s, busy_power_w

from optimizer.models.load import Load
from optimizer.models.machine import Machine
from optimizer.operating_point import OperatingPoint
from optimizer.policies.choosing import Options
from optimizer.policies.landscape import Landscape, Margins
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes, DeviceReading, Energy, EnergySource, Traffic, Window

TARGETS = Targets(slo_p99_ms=40.0, energy_price_per_kwh=10.0)
HIGH = len(CLOCKS) - 1
BEFORE_PER_S = 1500.0


def known() -> Machine:
    machine = Machine(GRID)
    for _ in range(3):
        for batch in (1, 2, 4, 8, 16, 32, 64):
            for clock in CLOCKS[::8]:
                seconds = batch_s(batch, clock)
                count = int(0.5 / seconds)
                busy_s = count * seconds
                joules = IDLE_W + busy_s * (busy_power_w(batch, clock) - IDLE_W)
                traffic = Traffic(completed=count * batch, batches={batch: BatchTimes(count, busy_s)})
                reading = DeviceReading(Energy(joules, EnergySource.SIMULATED))
                window = Window(0.0, 1.0, OperatingPoint(64, clock), traffic, reading)
                machine.learn_times(traffic.batches, clock, clock)
                machine.learn_power(window, clock)
    return machine


def land(rate_per_s: float = 2000.0, targets: Targets = TARGETS) -> Landscape:
    margins = Margins(slo_share=1.0, overhead_ms=0.0, reserve_per_s=0.0)
    return Landscape(GRID, KNOWN, Load(rate_per_s, 1.0), targets, margins)


KNOWN = known()
LAND = land()
AT_HIGH = Options(LAND, HIGH, strong=LAND.fast_column, surges_per_window=0.0, curiosity=0.0, calm=0)
BEST = LAND.best()


def test_it_goes_where_clearly_more_is_earned() -> None:
    choice = AT_HIGH.best()
    assert (choice.row, choice.column) == BEST
    assert choice.column < HIGH


def test_it_stays_where_little_more_is_earned() -> None:
    near = replace(AT_HIGH, column=BEST[1] + 1)
    assert near.best().column == BEST[1] + 1
    assert near.best().why == "no other clock earns clearly more"


def test_in_a_long_calm_less_is_enough() -> None:
    worth_in_calm = [replace(AT_HIGH, calm=10_000, column=column).best().column for column in range(HIGH)]
    worth_now = [replace(AT_HIGH, column=column).best().column for column in range(HIGH)]
    assert worth_in_calm.count(BEST[1]) > worth_now.count(BEST[1])


def test_where_surges_come_often_it_holds_the_clock_that_they_need() -> None:
    strong = BEST[1] + 3
    assert replace(AT_HIGH, strong=strong, surges_per_window=1.0).best().column == strong
    assert replace(AT_HIGH, strong=strong, surges_per_window=0.0).best().column == BEST[1]


def test_below_the_clock_that_surges_need_it_tries_only_what_may_earn_clearly_more() -> None:
    cheap = land(targets=replace(TARGETS, energy_price_per_kwh=0.001 * TARGETS.energy_price_per_kwh))
    for found, tried in ((LAND, True), (cheap, False)):
        _, best = found.best()
        options = Options(found, best, strong=best, surges_per_window=0.0, curiosity=0.9, calm=0)
        _, lower = found.most_promising(0.9)
        assert lower < best, "what is least known may be cheapest"
        assert (options.best().column == lower) is tried


def test_a_clock_at_which_nothing_is_in_time_holds_nothing() -> None:
    hurried = land(3500.0)
    assert hurried.holds(HIGH)
    assert not hurried.holds(0)


@pytest.mark.parametrize(("relieved", "column"), [(True, BEST[1]), (False, LAND.fast_column)])
def test_the_refuge_is_the_known_clock_if_no_more_is_wrong(relieved: bool, column: int) -> None:
    choice = replace(AT_HIGH, strong=BEST[1]).refuge("late", relieved=relieved)
    assert (choice.column, choice.why) == (column, "late")
    assert choice.row == LAND.greedy_row(column)


def test_it_rests_at_the_lowest_clock_that_could_take_up_the_traffic() -> None:
    lowest = AT_HIGH.resting(0.0, already=False).column
    busier = AT_HIGH.resting(BEFORE_PER_S, already=False).column
    assert lowest < busier <= HIGH
    assert LAND.capacity_per_s(busier) >= BEFORE_PER_S > LAND.capacity_per_s(lowest)


def test_at_rest_it_moves_no_more_for_a_little() -> None:
    rests = AT_HIGH.resting(BEFORE_PER_S, already=False).column
    slightly_higher = replace(AT_HIGH, column=rests + 1)
    assert slightly_higher.resting(BEFORE_PER_S, already=True).column == rests + 1
    assert slightly_higher.resting(BEFORE_PER_S, already=False).column == rests
