"""The alarm that goes with a decision, on a landscape over a machine that is known all over."""

from __future__ import annotations

from fluid_plant import CLOCKS, GRID, batch_s

from optimizer.models.arrivals import ArrivalModel
from optimizer.models.load import Load
from optimizer.models.machine import Machine
from optimizer.operating_point import OperatingPoint
from optimizer.policies.alarms import Alarms
from optimizer.policies.landscape import Landscape, Margins
from optimizer.policies.policy import Alarm
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes

RATE_PER_S = 2000.0
LOW, HIGH = 40, 70


def known() -> Machine:
    machine = Machine(GRID)
    for batch in (1, 4, 16, 64):
        for clock in CLOCKS[::8]:
            machine.learn_times({batch: BatchTimes(20, 20 * batch_s(batch, clock))}, clock, clock)
    return machine


LAND = Landscape(
    GRID,
    known(),
    Load(RATE_PER_S, 1.0),
    Targets(slo_p99_ms=40.0),
    Margins(slo_share=1.0, overhead_ms=0.0, reserve_per_s=0.0),
)
ROW = LAND.greedy_row(LOW)
POINT = OperatingPoint(64, CLOCKS[LOW], max_delay_ms=5.0)


def alarms() -> Alarms:
    arrivals = ArrivalModel()
    for _ in range(20):
        arrivals.observe(int(RATE_PER_S), 1.0)
    return Alarms(arrivals)


def alarm(of: Alarms, point: OperatingPoint = POINT, *, strong: int = HIGH) -> Alarm:
    found = of.alarm(LAND, (ROW, CLOCKS.index(point.sm_clock_mhz)), point, strong=strong, known_per_s=0.0)
    assert found is not None
    return found


def test_it_leads_to_the_fast_point() -> None:
    found = alarm(alarms())
    assert found.refuge.sm_clock_mhz == LAND.clock_mhz(LAND.fast_column)
    assert found.refuge.max_delay_ms == 0.0
    assert found.then is None


def test_at_the_fast_point_there_is_none() -> None:
    fast = LAND.fast_column
    at_fast = OperatingPoint(64, LAND.clock_mhz(fast))
    assert alarms().alarm(LAND, (ROW, fast), at_fast, strong=fast, known_per_s=0.0) is None


def test_at_a_clock_that_held_such_a_load_it_first_only_stops_waiting() -> None:
    found = alarm(alarms(), strong=LOW)
    assert (found.refuge.sm_clock_mhz, found.refuge.max_delay_ms) == (CLOCKS[LOW], 0.0)
    assert found.then is not None
    assert found.then.refuge.sm_clock_mhz == LAND.clock_mhz(LAND.fast_column)


def test_where_nothing_is_waited_for_there_is_nothing_to_stop() -> None:
    found = alarm(alarms(), OperatingPoint(64, CLOCKS[LOW]), strong=LOW)
    assert found.refuge.sm_clock_mhz == LAND.clock_mhz(LAND.fast_column)


def test_false_alarms_make_it_reluctant_and_calm_lets_that_fade() -> None:
    of = alarms()
    usual = alarm(of).wire.burst_images
    of.was_false()
    reluctant = alarm(of).wire.burst_images
    assert reluctant > usual
    for _ in range(1000):
        of.calm_down()
    assert usual <= alarm(of).wire.burst_images < usual + 0.01 * (reluctant - usual)
