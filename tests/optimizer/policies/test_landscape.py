"""The landscape over a machine that is known all over, against what a scalar calculation and reason say."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from fluid_plant import CLOCKS, GRID, IDLE_W, batch_s, busy_power_w

from optimizer.models.load import Load
from optimizer.models.machine import Machine
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.landscape import Landscape, Margins
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes, DeviceReading, Energy, EnergySource, Traffic, Window

TARGETS = Targets(slo_p99_ms=40.0)
NO_MARGINS = Margins(slo_share=1.0, overhead_ms=0.0, reserve_per_s=0.0)
BUSY = 0.5


def measured(batch: int, clock_mhz: int, *, energy: bool = True) -> Window:
    """A second in which batches of one size ran for half of the time."""
    seconds = batch_s(batch, clock_mhz)
    count = int(BUSY / seconds)
    busy = count * seconds
    joules = IDLE_W + busy * (busy_power_w(batch, clock_mhz) - IDLE_W)
    reading = DeviceReading(Energy(joules, EnergySource.SIMULATED)) if energy else DeviceReading()
    traffic = Traffic(completed=count * batch, batches={batch: BatchTimes(count, busy)})
    return Window(0.0, 1.0, OperatingPoint(64, clock_mhz), traffic, reading)


def known(grid: OperatingGrid = GRID, *, energy: bool = True) -> Machine:
    machine = Machine(grid)
    for _ in range(3):
        for batch in (1, 2, 4, 8, 16, 32, 64):
            for clock in CLOCKS[::8]:
                window = measured(batch, clock, energy=energy)
                machine.learn_times(window.traffic.batches, clock, clock)
                machine.learn_power(window, clock)
    return machine


KNOWN = known()


def land(
    rate: float = 2000.0,
    targets: Targets = TARGETS,
    margins: Margins = NO_MARGINS,
    machine: Machine = KNOWN,
    grid: OperatingGrid = GRID,
    dispersion: float = 1.0,
) -> Landscape:
    return Landscape(grid, machine, Load(rate, dispersion), targets, margins)


def chosen(found: Landscape) -> OperatingPoint:
    return found.point(*found.best())


def test_a_setting_earns_what_a_scalar_calculation_says() -> None:
    found, rate = land(), 2000.0
    row = int(np.searchsorted(KNOWN.sizes, 16.0))
    for column in (50, 65, 80):
        clock = CLOCKS[column]
        seconds = batch_s(16, clock)
        watts = IDLE_W + rate / 16 * seconds * (busy_power_w(16, clock) - IDLE_W)
        prediction = found.prediction(row, column)
        assert prediction.power_w == pytest.approx(watts, rel=0.08)
        income = rate * TARGETS.price_per_1000_images / 1000.0
        assert prediction.revenue_per_s == pytest.approx(income - TARGETS.price_per_joule * watts, rel=1e-3)
        assert prediction.point == OperatingPoint(64, clock, max_delay_ms=7.5)


def test_the_best_is_as_good_as_every_setting_that_keeps_the_slo() -> None:
    found = land()
    assert found.feasible
    best = found.prediction(*found.best())
    assert found.in_time(*found.best())
    for row in range(0, KNOWN.sizes.size, 3):
        for column in range(0, len(CLOCKS), 5):
            if np.isfinite(found.cost_per_s(row, column)):
                assert found.in_time(row, column)
                assert found.prediction(row, column).revenue_per_s <= best.revenue_per_s


@pytest.mark.parametrize("rate", [1.0, 300.0, 2000.0, 4000.0, 1e5])
@pytest.mark.parametrize("form", ["profit", "energy", "edp", "ed2p", "zeus"])
def test_whatever_is_aimed_at_every_setting_proposed_is_legal(rate: float, form: str) -> None:
    found = land(rate, replace(TARGETS, form=form))
    for place in found.top(5):
        point = found.point(*place)
        assert point in GRID
        assert point.max_delay_ms >= 0.0
    assert chosen(found) == found.point(*found.top(1)[0])


def test_dear_energy_buys_less_power_and_patience_does_too() -> None:
    def watts(targets: Targets, rate: float = 1000.0) -> float:
        found = land(rate, targets)
        return found.prediction(*found.best()).power_w or 0.0

    assert watts(replace(TARGETS, form="energy")) < 0.8 * watts(replace(TARGETS, form="ed2p"))
    assert (
        watts(replace(TARGETS, slo_p99_ms=80.0)) < watts(TARGETS) < watts(replace(TARGETS, slo_p99_ms=10.0))
    )


def test_a_tight_slo_makes_small_batches_and_no_delay() -> None:
    loose, tight = land(500.0), land(500.0, replace(TARGETS, slo_p99_ms=9.0))
    assert chosen(tight).batch_limit < chosen(loose).batch_limit
    assert chosen(tight).max_delay_ms < chosen(loose).max_delay_ms
    assert tight.p99_ms(*tight.best()) <= 9.0 < loose.p99_ms(*loose.best()) <= 40.0


def test_the_largest_batch_of_a_clock_is_answered_in_time() -> None:
    found = land(500.0, replace(TARGETS, slo_p99_ms=15.0))
    limits = [found.point(0, column).batch_limit for column in range(len(CLOCKS))]
    assert limits == sorted(limits)
    assert 1 < limits[0] < limits[-1]
    assert all(batch_s(b, f) < 0.015 for b, f in zip(limits, CLOCKS, strict=True))


def test_margins_keep_room_free() -> None:
    bare = land()
    for margins in (replace(NO_MARGINS, slo_share=0.6), replace(NO_MARGINS, overhead_ms=15.0)):
        careful = land(margins=margins)
        assert careful.spare_s < bare.spare_s
        assert careful.cost_per_s(*careful.best()) > bare.cost_per_s(*bare.best())
    overhead = land(margins=replace(NO_MARGINS, overhead_ms=15.0))
    assert overhead.p99_ms(3, 40) == pytest.approx(bare.p99_ms(3, 40) + 15.0)


def test_no_batch_limit_splits_the_largest_request() -> None:
    tight = replace(TARGETS, slo_p99_ms=10.0)
    loads = Load(30.0, 1.0), Load(30.0, 16.0, 16.0, 16.0, 24.0)
    single, several = (Landscape(GRID, KNOWN, load, tight, NO_MARGINS) for load in loads)
    assert smallest_limit(single) < 24 <= smallest_limit(several)


def smallest_limit(found: Landscape) -> int:
    return min(found.point(0, column).batch_limit for column in range(len(CLOCKS)))


def test_a_reserve_raises_the_clock_but_never_beyond_the_fast_point() -> None:
    bare = land(500.0)
    ready = land(500.0, margins=replace(NO_MARGINS, reserve_per_s=3800.0))
    assert ready.capacity_per_s(ready.best()[1]) >= 3800.0 > bare.capacity_per_s(bare.best()[1])
    most = land(500.0, margins=replace(NO_MARGINS, reserve_per_s=1e9))
    assert most.feasible
    assert most.best()[1] >= 0.9 * most.fast_column


def found_per_s(found: Landscape, column: int) -> float:
    """Images a second in the largest batches of a clock."""
    limit = found.point(0, column).batch_limit
    row = int(np.searchsorted(KNOWN.sizes, limit))
    return limit / float(found.tables.times_s[row, column])


def test_surges_that_a_clock_does_not_hold_cost_what_is_late_until_the_fast_one_is_set() -> None:
    priced = replace(TARGETS, price_per_1000_images=0.01, late_penalty_per_1000_images=0.02)
    bare, surges = (
        land(500.0, priced, margins=replace(NO_MARGINS, surge_per_s=3000.0, surges=often))
        for often in (0.0, 0.1)
    )
    holding = surges.holds_surge(surges.fast_column)
    assert 0 < holding < surges.fast_column
    assert bare.best()[1] < holding <= surges.best()[1]
    lost = [bare.revenue_per_s(0, column) - surges.revenue_per_s(0, column) for column in range(len(CLOCKS))]
    served, at_fast = (found_per_s(surges, column) for column in (0, len(CLOCKS) - 1))
    late_for_s = 0.25 + 0.25 * (3000.0 - served) / (at_fast - 3000.0)
    assert lost[0] == pytest.approx(0.1 * late_for_s * 3000.0 * 0.03e-3), "until worked off, and fined"
    assert lost[surges.fast_column] == pytest.approx(0.0, abs=0.01 * lost[0])
    assert surges.holds_surge(0) == 0, "a clock that does not hold it has no lower one that does"
    assert bare.holds_surge(holding + 3) == holding + 3, "nothing is known of surges"


def test_a_load_beyond_everything_goes_to_the_fast_point_in_large_batches_at_once() -> None:
    found = land(1e5)
    assert not found.feasible
    assert chosen(found) == OperatingPoint(64, CLOCKS[-1])
    assert found.fast_column == len(CLOCKS) - 1


def test_an_slo_that_nothing_keeps_is_infeasible() -> None:
    assert not land(100.0, replace(TARGETS, slo_p99_ms=2.0)).feasible


@pytest.mark.parametrize("slo_ms", [0.5, 2.0])
def test_where_nearly_all_would_be_late_everywhere_it_goes_to_the_fast_point(slo_ms: float) -> None:
    found = land(100.0, replace(TARGETS, slo_p99_ms=slo_ms))
    assert found.best()[1] == found.fast_column
    assert chosen(found).max_delay_ms == 0.0


@pytest.mark.parametrize("slo_ms", [4.0, 6.0, 8.0, 10.0])
@pytest.mark.parametrize("rate", [100.0, 1000.0, 4000.0])
def test_nothing_is_delayed_where_the_slo_cannot_be_kept(rate: float, slo_ms: float) -> None:
    found = land(rate, replace(TARGETS, slo_p99_ms=slo_ms))
    assert found.feasible or chosen(found).max_delay_ms == 0.0


def test_a_power_cap_binds_what_runs_and_the_fast_point() -> None:
    free, capped = land(), land(targets=replace(TARGETS, power_cap_w=130.0))
    assert free.fast_column == len(CLOCKS) - 1
    fast = capped.fast_column
    assert busy_power_w(64, CLOCKS[fast]) <= 1.05 * 130.0 < busy_power_w(64, CLOCKS[fast + 8])
    assert capped.under_cap(*capped.best())
    assert capped.feasible
    for place in capped.top(20):
        if np.isfinite(capped.cost_per_s(*place)):
            assert busy_power_w(int(KNOWN.sizes[place[0]]), CLOCKS[place[1]]) <= 1.05 * 130.0


def test_under_a_cap_that_nothing_keeps_it_draws_least() -> None:
    found = land(targets=replace(TARGETS, power_cap_w=30.0))
    assert not found.feasible
    assert chosen(found).sm_clock_mhz == CLOCKS[0]
    assert not found.under_cap(*found.best())


def test_a_cap_below_what_batches_draw_is_kept_by_the_mean_where_pauses_allow_it() -> None:
    draws_least = busy_power_w(1, CLOCKS[0])
    found = land(50.0, replace(TARGETS, power_cap_w=0.9 * draws_least))
    assert found.feasible
    mean_w = found.prediction(*found.best()).power_w
    assert mean_w is not None
    assert mean_w <= 0.9 * draws_least
    assert found.under_cap(*found.best())
    loaded = land(2000.0, replace(TARGETS, power_cap_w=0.9 * draws_least))
    assert not loaded.feasible


def test_where_batches_keep_the_cap_the_mean_is_not_looked_at() -> None:
    """A surge then cannot exceed it."""
    cap_w = 1.2 * busy_power_w(8, CLOCKS[0])
    found = land(50.0, replace(TARGETS, power_cap_w=cap_w))
    assert found.feasible
    row, column = found.best()
    assert busy_power_w(int(KNOWN.sizes[row]), CLOCKS[column]) <= 1.05 * cap_w


def test_a_cap_forbids_the_fast_point_even_where_nothing_else_serves_the_load() -> None:
    found = land(1e5, replace(TARGETS, power_cap_w=130.0))
    assert not found.feasible
    clock_mhz = chosen(found).sm_clock_mhz
    assert clock_mhz is not None
    assert busy_power_w(64, clock_mhz) <= 1.05 * 130.0


def test_the_best_settings_come_in_order_each_at_another_clock() -> None:
    found = land()
    top = found.top(10)
    costs = [found.cost_per_s(*place) for place in top]
    assert costs == sorted(costs)
    assert len({column for _, column in top}) == 10
    assert top[0] == found.best()
    for _, column in top:
        assert found.best_at(column)[1] == column


def test_curiosity_prefers_what_was_never_tried_when_little_is_at_stake() -> None:
    machine = Machine(GRID)
    clock, batch = 1500, 8
    for _ in range(20):
        window = measured(batch, clock)
        machine.learn_times(window.traffic.batches, clock, clock)
        machine.learn_power(window, clock)
        row, column = land(machine=machine).best()
        clock, batch = CLOCKS[column], int(machine.sizes[row])
    found = land(machine=machine)
    sure, curious = found.most_promising(0.0), found.most_promising(0.5)
    assert sure == found.best()
    assert found.tables.known[curious] < found.tables.known[sure]
    assert found.cost_per_s(*sure) < found.cost_per_s(*curious) <= 2.0 * found.cost_per_s(*sure)


def test_where_nothing_was_measured_it_reckons_with_slower_batches() -> None:
    machine = Machine(GRID)
    machine.learn_times({8: BatchTimes(100, 100 * batch_s(8, 1500))}, 1500, 1500)
    tables = machine.tables()
    assert (tables.cautious_times_s >= tables.times_s * (1.0 - 1e-9)).all()
    there = int(np.searchsorted(machine.sizes, 8.0)), len(CLOCKS) - 1
    assert tables.cautious_times_s[there] == pytest.approx(batch_s(8, 1500), rel=0.02)
    far = there[0], 0
    assert tables.cautious_times_s[far] > 1.2 * tables.times_s[far]
    assert tables.cautious_times_s[far] <= batch_s(8, 1500) * CLOCKS[-1] / CLOCKS[0] * 1.01, "physics' limit"


def test_the_greedy_row_waits_for_nothing() -> None:
    found = land()
    for column in (20, 50, 80):
        row = found.greedy_row(column)
        assert found.point(row, column).max_delay_ms == 0.0
        assert found.point(row + 1, column).max_delay_ms > 0.0
    assert land(1e5).greedy_row(80) == KNOWN.sizes.size - 1


def test_without_delay_power_does_not_jump_where_batches_fit_the_table() -> None:
    """Mean batches lie between the sizes of the table; rounded, power would jump from clock to clock."""
    found = land(3000.0)
    columns = range(len(CLOCKS) // 2, len(CLOCKS))
    power_w = np.array([found.prediction(found.greedy_row(column), column).power_w for column in columns])
    steps = np.diff(power_w) / power_w[:-1]
    assert np.abs(np.diff(steps)).max() < 0.012


def test_more_clock_is_more_capacity() -> None:
    found = land()
    capacities = [found.capacity_per_s(column) for column in range(len(CLOCKS))]
    assert capacities[-1] == pytest.approx(64 / batch_s(64, 1500), rel=0.05), "two such batches fit"
    assert capacities[20] < capacities[50] < capacities[80]


def test_a_single_image_rests_in_time_only_at_a_clock_that_is_fast_enough() -> None:
    found = land(targets=replace(TARGETS, slo_p99_ms=8.0))
    rests = [found.rests_in_time(column) for column in range(len(CLOCKS))]
    assert rests == sorted(rests)
    assert rests[-1]
    assert not rests[0]


@pytest.mark.parametrize(
    ("images", "slo_ms", "batches"), [(1, 8.0, 1), (16, 16.0, 1), (64, 40.0, 1), (128, 80.0, 2)]
)
def test_requests_rest_in_time_only_where_two_of_their_size_do(
    images: int, slo_ms: float, batches: int
) -> None:
    load = Load(100.0, 1.0, images, images, images)
    found = Landscape(GRID, KNOWN, load, replace(TARGETS, slo_p99_ms=slo_ms), NO_MARGINS)
    rests = [found.rests_in_time(column) for column in range(len(CLOCKS))]
    two_ms = [2e3 * batches * batch_s(images // batches, clock) for clock in CLOCKS]
    assert all(rest for rest, ms in zip(rests, two_ms, strict=True) if ms < 0.9 * slo_ms)
    assert not any(rest for rest, ms in zip(rests, two_ms, strict=True) if ms > 1.1 * slo_ms)
    assert any(rests)
    assert not all(rests)


def test_without_energy_and_clocks_only_time_counts() -> None:
    grid = OperatingGrid(tuple(range(1, 65)))
    machine = Machine(grid)
    for batch in (1, 8, 32, 64):
        window = measured(batch, 1500, energy=False)
        machine.learn_times(window.traffic.batches, None, None)
        machine.learn_power(window, None)
    found = land(machine=machine, grid=grid, targets=replace(TARGETS, slo_p99_ms=12.0))
    assert not machine.knows_power
    assert found.prediction(*found.best()).power_w is None
    assert chosen(found).sm_clock_mhz is None
    assert batch_s(chosen(found).batch_limit, 1500) < 0.012
    assert found.p99_ms(*found.best()) <= 12.0


@pytest.mark.parametrize("form", ["profit", "energy", "edp", "ed2p", "zeus"])
def test_hope_makes_settings_that_never_ran_cheaper_where_averages_are_scored(form: str) -> None:
    machine = Machine(GRID)
    for batch in (1, 4, 16):
        window = measured(batch, CLOCKS[-1])
        machine.learn_times(window.traffic.batches, CLOCKS[-1], CLOCKS[-1])
        machine.learn_power(window, CLOCKS[-1])
    found = land(rate=1000.0, targets=replace(TARGETS, form=form), machine=machine)
    for column in range(len(CLOCKS) // 2, len(CLOCKS)):
        cost, least = found.cost_per_s(*found.best_at(column)), found.least_cost_per_s(column, 0.0)
        if form == "profit":
            assert least == cost
        elif column < len(CLOCKS) - 10:
            assert least < 0.98 * cost
    assert found.least_cost_per_s(len(CLOCKS) - 1, 0.0) > 0.7 * found.cost_per_s(
        *found.best_at(len(CLOCKS) - 1)
    )


@pytest.mark.parametrize("form", ["edp", "ed2p", "zeus"])
def test_where_the_form_looks_at_latency_batches_wait_less_to_grow(form: str) -> None:
    patient = chosen(land(rate=1000.0, targets=replace(TARGETS, form="energy")))
    assert chosen(land(rate=1000.0, targets=replace(TARGETS, form=form))).max_delay_ms < patient.max_delay_ms


@pytest.mark.parametrize("targets", [TARGETS, replace(TARGETS, form="edp")])
def test_clocks_without_the_reserve_are_not_scored_until_they_are_asked_of(targets: Targets) -> None:
    """And it makes no difference to the others whether they are."""
    margins = replace(NO_MARGINS, reserve_per_s=3000.0, surge_per_s=3500.0, surges=0.1)
    found, whole = land(targets=targets, margins=margins), land(targets=targets, margins=margins)
    lowest = next(at for at in range(len(CLOCKS)) if whole.capacity_per_s(at) >= 3000.0)
    assert lowest > 0
    below = whole.prediction(whole.greedy_row(0), 0)
    assert below.point.sm_clock_mhz == CLOCKS[0]
    assert math.isinf(found.cost_per_s(*found.best_at(0)))
    assert math.isinf(whole.cost_per_s(*whole.best_at(0)))
    assert found.best() == whole.best()
    assert found.fast_column == whole.fast_column
    assert found.most_promising(0.04) == whole.most_promising(0.04)
    for place in found.top(len(CLOCKS)):
        assert place[1] >= lowest
        _, *expected = astuple(whole.prediction(*place))
        assert found.point(*place) == whole.point(*place)
        assert astuple(found.prediction(*place))[1:] == pytest.approx(expected, rel=1e-12)
