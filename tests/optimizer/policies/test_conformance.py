"""What every policy must do, ours and the rivals alike, whatever it is shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from fluid_plant import BOARD_LIMIT_W, CLOCKS, GRID, SWEEP, FluidPlant, batch_s, settled, window
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.governor import Governor, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision, Policy
from optimizer.policies.registry import POLICY_NAMES, SWEEPING, OfflineSweep, make_policy
from optimizer.revenue import Targets, window_revenue
from optimizer.telemetry import (
    NOT_MEASURED,
    BatchTimes,
    DeviceReading,
    Energy,
    EnergySource,
    EventReason,
    Traffic,
    Window,
)

TARGETS = Targets(slo_p99_ms=25.0)
GRIDS = {
    "fine": GRID,
    "coarse": OperatingGrid((1, 2, 4, 8, 16, 32, 64), (500, 1000, 1500)),
    "one setting": OperatingGrid((8,), (900,)),
    "no clocks": OperatingGrid((1, 2, 4, 8, 16)),
}
THERMAL = (
    EventReason.HW_SLOWDOWN,
    EventReason.SW_THERMAL_SLOWDOWN,
    EventReason.HW_THERMAL_SLOWDOWN | EventReason.GPU_IDLE,
    EventReason.HW_POWER_BRAKE,
)
every_policy = pytest.mark.parametrize("name", POLICY_NAMES)


def make(name: str, grid: OperatingGrid = GRID, targets: Targets = TARGETS) -> Policy:
    return make_policy(name, grid, targets, SWEEP)


def govern(policy: Policy, plant: FluidPlant, steps: int, targets: Targets = TARGETS) -> list[Record]:
    """Let a policy govern a plant for so many seconds, from the default setting on."""
    governor = Governor(plant, policy, GRID, targets, lambda: plant.now_s)
    governor.start()
    return [governor.step() for _ in range(steps)]


# Names


@every_policy
def test_it_answers_to_its_name(name: str) -> None:
    assert make(name).name == name


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"no policy 'best'; there are boulton, default, .*bayesian"):
        make("best")


@every_policy
def test_only_those_that_tune_offline_need_a_sweep(name: str) -> None:
    if name in SWEEPING:
        with pytest.raises(ValueError, match="needs a sweep"):
            make_policy(name, GRID, TARGETS, None)
    else:
        assert make_policy(name, GRID, TARGETS, None).name == name


@pytest.mark.parametrize("name", [name for name in POLICY_NAMES if name not in SWEEPING])
def test_those_that_learn_while_serving_do_not_touch_the_sweep(name: str) -> None:
    def forbidden(batch: int, clock_mhz: float) -> float:
        raise AssertionError("measured offline")

    policy = make_policy(name, GRID, TARGETS, OfflineSweep(forbidden, forbidden, 20.0, BOARD_LIMIT_W))
    govern(policy, FluidPlant(2000.0), 30)


# Bounds

counts = st.integers(0, 100_000)
lengths = st.just(0.0) | st.floats(1e-6, 100.0)
powers = st.none() | st.just(0.0) | st.floats(1e-3, 1e5)
latencies = st.none() | st.floats(0.0, 1e7)
traffics = st.builds(
    Traffic,
    arrived=counts,
    completed=counts,
    late=counts,
    refused=counts,
    expired=counts,
    queued=counts,
    latency_p99_ms=latencies,
    batches=st.dictionaries(
        st.integers(1, 300), st.builds(BatchTimes, st.integers(0, 500), lengths), max_size=4
    ),
)
readings = st.builds(
    lambda joules, power_w, clock, reasons: DeviceReading(
        NOT_MEASURED if joules is None else Energy(joules, EnergySource.SIMULATED),
        power_w,
        clock,
        event_reasons=reasons,
    ),
    powers,
    powers,
    st.none() | st.integers(1, 3000),
    st.sampled_from([EventReason.NONE, EventReason.SW_POWER_CAP, EventReason.HW_THERMAL_SLOWDOWN]),
)
shown = st.lists(
    st.tuples(
        traffics,
        readings,
        st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
        st.sampled_from(["as told", "elsewhere", "no clock"]),
    ),
    max_size=12,
)


def point_of(kind: str, grid: OperatingGrid, told: OperatingPoint) -> OperatingPoint:
    if kind == "no clock":
        return replace(told, sm_clock_mhz=None)
    return told if kind == "as told" else OperatingPoint(grid.batch_limits[0], grid.default.sm_clock_mhz)


@every_policy
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(shown=shown, slo_ms=st.floats(0.1, 1e4), cap_w=st.none() | st.floats(1.0, 500.0))
def test_whatever_it_sees_it_stays_within_bounds(
    name: str,
    grid: OperatingGrid,
    shown: list[tuple[Traffic, DeviceReading, float, str]],
    slo_ms: float,
    cap_w: float | None,
) -> None:
    targets = Targets(slo_p99_ms=slo_ms, power_cap_w=cap_w)
    policy, told = make(name, grid, targets), grid.default
    for number, (traffic, reading, seconds, kind) in enumerate(shown):
        here = point_of(kind, grid, told)
        decision = policy.decide(Window(float(number), number + seconds, here, traffic, reading), targets)
        if here.sm_clock_mhz is None:
            assert decision.point.sm_clock_mhz is None
            assert decision.point.batch_limit in grid.batch_limits
        else:
            assert decision.point in grid
        assert decision.point.max_delay_ms >= 0.0
        assert decision.reason
        assert "\n" not in decision.reason
        assert not math.isnan(decision.predicted_revenue_per_s or 0.0)
        told = decision.point if decision.point in grid else grid.default


@every_policy
def test_nothing_at_all_is_no_reason_to_fail(name: str) -> None:
    nothing = Window(0.0, 0.0, GRID.default)
    policy = make(name)
    assert all(policy.decide(nothing, TARGETS).point in GRID for _ in range(5))


@every_policy
def test_the_same_windows_bring_the_same_decisions(name: str) -> None:
    first = [record.decision for record in govern(make(name), FluidPlant(2000.0), 50)]
    assert first == [record.decision for record in govern(make(name), FluidPlant(2000.0), 50)]


# A window without a clock


@every_policy
def test_where_no_clock_can_be_set_it_decides_on_the_batch_only(name: str) -> None:
    policy, point = make(name), replace(GRID.default, sm_clock_mhz=None)
    plant = FluidPlant(2000.0)
    for _ in range(30):
        plant.act(point)
        point = policy.decide(Window(0.0, 1.0, point, *plant.sense(25.0)), TARGETS).point
        assert point.sm_clock_mhz is None
        assert point.batch_limit in GRID.batch_limits


@every_policy
def test_without_energy_and_clocks_it_still_governs(name: str) -> None:
    grid = GRIDS["no clocks"]
    policy, point = make(name, grid), grid.default
    for p99_ms in (5.0, 30.0, 5.0, 20.0):
        point = policy.decide(window(point, p99_ms=p99_ms, watts=None), TARGETS).point
        assert point in grid


# Windows that prove nothing


def disturbed(here: OperatingPoint, watts: float, p99_ms: float, reasons: EventReason, images: int) -> Window:
    ran = {8: BatchTimes(max(1, images // 8), max(1, images // 8) * p99_ms / 2e3)}
    return window(here, images=images, p99_ms=p99_ms, watts=watts, reasons=reasons, batches=ran)


def after(name: str, disturbances: Callable[[OperatingPoint], list[Window]]) -> list[Decision]:
    """Govern for a while, see some windows at the setting reached, and go on."""
    policy, plant = make(name), FluidPlant(2000.0)
    decisions = [record.decision for record in govern(policy, plant, 25)]
    point = decisions[-1].point
    for seen in disturbances(point):
        decisions.append(policy.decide(seen, TARGETS))
        point = decisions[-1].point
    for _ in range(12):
        plant.act(point)
        decisions.append(policy.decide(Window(0.0, 1.0, point, *plant.sense(25.0)), TARGETS))
        point = decisions[-1].point
    return decisions


@every_policy
@pytest.mark.parametrize("reasons", THERMAL, ids=str)
def test_throttled_windows_teach_it_nothing(name: str, reasons: EventReason) -> None:
    """Two that differ in nothing but what was measured while throttled go on alike."""
    mild = after(name, lambda here: [disturbed(here, 50.0, 3.0, reasons, 2000)] * 2)
    wild = after(name, lambda here: [disturbed(here, 290.0, 24.0, reasons, 2000)] * 2)
    assert [d.point for d in mild] == [d.point for d in wild]


def not_taken(seen: Window) -> Window:
    return replace(seen, device=replace(seen.device, clock_not_taken="600 MHz is in force"))


@every_policy
def test_windows_at_a_clock_that_was_not_taken_teach_it_nothing(name: str) -> None:
    none = EventReason.NONE
    mild = after(name, lambda here: [not_taken(disturbed(here, 50.0, 3.0, none, 2000))] * 2)
    wild = after(name, lambda here: [not_taken(disturbed(here, 290.0, 24.0, none, 2000))] * 2)
    assert [d.point for d in mild] == [d.point for d in wild]


@every_policy
def test_windows_of_a_few_images_teach_it_nothing(name: str) -> None:
    mild = after(name, lambda here: [disturbed(here, 21.0, 3.0, EventReason.NONE, 10)] * 2)
    wild = after(name, lambda here: [disturbed(here, 290.0, 24.0, EventReason.NONE, 10)] * 2)
    assert [d.point for d in mild] == [d.point for d in wild]


@pytest.mark.parametrize("name", [name for name in POLICY_NAMES if name not in ("boulton", "default")])
@pytest.mark.parametrize("reasons", THERMAL, ids=str)
def test_a_throttled_window_moves_no_rival(name: str, reasons: EventReason) -> None:
    policy, here = make(name), OperatingPoint(32, 900)
    kept = policy.decide(window(here), TARGETS).point if name in ("static-best", "joule-point") else here
    for late in (0, 1000):
        unfit = window(here, p99_ms=200.0, late=late, queued=500, watts=290.0, reasons=reasons)
        assert policy.decide(unfit, TARGETS).point == kept


# Stopping


@every_policy
def test_stopping_restores_the_default_and_gives_the_clock_back(name: str) -> None:
    plant = FluidPlant(2000.0)
    governor = Governor(plant, make(name), GRID, TARGETS, lambda: plant.now_s)
    for _ in range(30):
        governor.step()
    assert governor.stop() is None
    assert plant.acts[-1] == OperatingPoint(GRID.default.batch_limit, None)


# Converging: each to the optimum of its own objective, on a plant where that is known


RATE_PER_S = 2000.0
SATURATING_PER_S = 1e5


def mhz(point: OperatingPoint) -> int:
    assert point.sm_clock_mhz is not None
    return point.sm_clock_mhz


def keeps_slo(point: OperatingPoint, rate_per_s: float = RATE_PER_S) -> bool:
    traffic, _ = settled(point, rate_per_s, TARGETS.slo_p99_ms)
    return traffic.late == 0 and traffic.queued == 0


def joules(point: OperatingPoint) -> float:
    return settled(point, RATE_PER_S, TARGETS.slo_p99_ms)[1]


def least_joules(points: list[OperatingPoint]) -> float:
    return min(joules(point) for point in points if keeps_slo(point))


def static_points() -> list[OperatingPoint]:
    return [OperatingPoint(limit, clock) for limit in (16, 32, 48, 64) for clock in CLOCKS]


def revenue_of(point: OperatingPoint) -> float:
    plant = FluidPlant(RATE_PER_S)
    plant.act(point)
    windows = [Window(0.0, 1.0, point, *plant.sense(TARGETS.slo_p99_ms)) for _ in range(10)]
    return window_revenue(TARGETS, windows[-1]).total


def boulton_earns_most_of_what_can_be_earned() -> None:
    last = govern(make("boulton"), FluidPlant(RATE_PER_S), 120)[-10:]
    best, default = max(revenue_of(point) for point in static_points()), revenue_of(GRID.default)
    for record in last:
        assert record.revenue.total >= default + 0.75 * (best - default)


def default_stays() -> None:
    assert {record.decision.point for record in govern(make("default"), FluidPlant(RATE_PER_S), 10)} == {
        GRID.default
    }


def static_best_has_the_most_throughput_within_the_slo() -> None:
    point = govern(make("static-best"), FluidPlant(RATE_PER_S), 2)[-1].decision.point
    in_time = [b for b in GRID.batch_limits if 2.0 * batch_s(b, CLOCKS[-1]) * 1e3 <= TARGETS.slo_p99_ms]
    assert point == OperatingPoint(max(in_time, key=lambda b: b / batch_s(b, CLOCKS[-1])), CLOCKS[-1])


def joule_point_spends_least_of_all_that_keep_the_slo() -> None:
    def per_image(point: OperatingPoint) -> float:
        b, f = point.batch_limit, mhz(point)
        return SWEEP.busy_power_w(b, f) * batch_s(b, f) / b

    point = govern(make("joule-point"), FluidPlant(RATE_PER_S), 2)[-1].decision.point
    slo_s = TARGETS.slo_p99_ms / 1e3
    kept = [p for p in GRID if 2.0 * batch_s(p.batch_limit, mhz(p)) <= slo_s]
    assert per_image(point) == min(per_image(p) for p in kept)


def clipper_circles_round_the_largest_batch_within_its_objective() -> None:
    largest = max(b for b in GRID.batch_limits if batch_s(b, CLOCKS[-1]) * 1e3 <= TARGETS.slo_p99_ms / 2.0)
    assert largest < GRID.batch_limits[-1], "there is something to find"
    last = govern(make("clipper"), FluidPlant(SATURATING_PER_S), 60)[-20:]
    assert all(0.85 * largest <= r.decision.point.batch_limit <= largest + 8 for r in last)


def batchdvfs_draws_what_its_dead_band_allows() -> None:
    capped = replace(TARGETS, power_cap_w=150.0)
    last = govern(make("batchdvfs"), FluidPlant(SATURATING_PER_S), 120, capped)[-20:]
    assert all(0.8 * 150.0 <= (record.window.device.power_w or 0.0) <= 150.0 for record in last)
    assert len({record.decision.point for record in last}) == 1


def morak_draws_what_its_cap_allows() -> None:
    capped = Targets(slo_p99_ms=100.0, power_cap_w=150.0)
    last = govern(make("morak"), FluidPlant(3000.0), 200, capped)[-20:]
    assert all(0.95 * 150.0 < (record.window.device.power_w or 0.0) <= 1.02 * 150.0 for record in last)
    assert len({record.decision.point for record in last}) == 1


def mu_serve_leaves_little_slack() -> None:
    last = govern(make("mu-serve"), FluidPlant(RATE_PER_S), 150)[-20:]
    assert all(20.0 <= (record.window.traffic.latency_p99_ms or 0.0) <= 22.5 for record in last)
    assert len({record.decision.point for record in last}) == 1


def throttllem_takes_the_lowest_clock_but_for_its_allowance() -> None:
    point = govern(make("throttllem"), FluidPlant(RATE_PER_S), 10)[-1].decision.point
    lowest = min(clock for clock in CLOCKS if keeps_slo(OperatingPoint(64, clock)))
    assert lowest <= mhz(point) <= 1.5 * lowest
    assert keeps_slo(point)


def gpoeo_spends_least_within_its_loss_limit() -> None:
    point = govern(make("gpoeo"), FluidPlant(RATE_PER_S), 200)[-1].decision.point
    allowed = [clock for clock in CLOCKS if batch_s(1, clock) <= 1.045 * batch_s(1, CLOCKS[-1])]
    best = min(allowed, key=lambda clock: joules(OperatingPoint(64, clock)))
    assert abs(mhz(point) - best) <= 15


def bayesian_spends_little_more_than_the_least() -> None:
    point = govern(make("bayesian"), FluidPlant(RATE_PER_S), 250)[-1].decision.point
    assert keeps_slo(point)
    assert joules(point) <= 1.05 * least_joules(static_points())


CONVERGED: dict[str, Callable[[], None]] = {
    "boulton": boulton_earns_most_of_what_can_be_earned,
    "default": default_stays,
    "static-best": static_best_has_the_most_throughput_within_the_slo,
    "joule-point": joule_point_spends_least_of_all_that_keep_the_slo,
    "clipper": clipper_circles_round_the_largest_batch_within_its_objective,
    "batchdvfs": batchdvfs_draws_what_its_dead_band_allows,
    "morak": morak_draws_what_its_cap_allows,
    "mu-serve": mu_serve_leaves_little_slack,
    "throttllem": throttllem_takes_the_lowest_clock_but_for_its_allowance,
    "gpoeo": gpoeo_spends_least_within_its_loss_limit,
    "bayesian": bayesian_spends_little_more_than_the_least,
}


@every_policy
def test_it_converges_to_the_optimum_of_its_own_objective(name: str) -> None:
    CONVERGED[name]()
