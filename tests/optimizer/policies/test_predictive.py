"""What every policy must do, whatever it is shown, and what this one is for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision, Policy
from optimizer.policies.predictive import PredictivePolicy
from optimizer.revenue import Targets
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

CLOCKS = tuple(range(300, 1501, 15))
GPU = OperatingGrid((1, 2, 4, 8, 16, 32, 64), CLOCKS)
CPU = OperatingGrid((1, 2, 4, 8, 16, 32))
TARGETS = Targets(slo_p99_ms=60.0)

counts = st.integers(0, 5000)
windows = st.builds(
    lambda traffic, reasons, clock, joules: (traffic, reasons, clock, joules),
    st.builds(
        Traffic,
        arrived=counts,
        completed=counts,
        late=counts,
        refused=counts,
        queued=counts,
        latency_p99_ms=st.none() | st.floats(0.0, 1e4),
        batches=st.dictionaries(
            st.integers(1, 64), st.builds(BatchTimes, st.integers(1, 500), st.floats(1e-4, 10.0)), max_size=4
        ),
    ),
    st.sampled_from([EventReason.NONE, EventReason.SW_POWER_CAP, EventReason.HW_THERMAL_SLOWDOWN]),
    st.none() | st.sampled_from(CLOCKS),
    st.none() | st.floats(0.0, 1e3),
)


def energy(joules: float | None) -> Energy:
    return NOT_MEASURED if joules is None else Energy(joules, EnergySource.SIMULATED)


def window(
    point: OperatingPoint,
    *,
    rate: int = 1000,
    late: int = 0,
    queued: int = 0,
    watts: float | None = None,
    reasons: EventReason = EventReason.NONE,
) -> Window:
    """One second of batches of 2 ms and 0.2 ms an image, half of it in proportion to the clock's period."""
    slowdown = 0.5 + 0.5 * 1500 / (point.sm_clock_mhz or 1500)
    sizes = {size: rate // (2 * size) for size in (1, 4) if rate >= 2 * size}
    batches = {size: BatchTimes(n, n * (0.002 + 0.0002 * size) * slowdown) for size, n in sizes.items()}
    traffic = Traffic(
        arrived=rate,
        completed=rate,
        late=late,
        queued=queued,
        latency_p99_ms=5.0 * slowdown,
        batches=batches,
    )
    return Window(0.0, 1.0, point, traffic, DeviceReading(energy=energy(watts), event_reasons=reasons))


def run(policy: Policy, grid: OperatingGrid, steps: int, rate: int = 1000) -> list[Decision]:
    """Let a policy govern; power rises with the square of the clock where there is one."""
    point, decisions = grid.default, []
    for _ in range(steps):
        clock = point.sm_clock_mhz
        watts = None if clock is None else 20 + 200 * (clock / 1500) ** 2
        decisions.append(policy.decide(window(point, rate=rate, watts=watts), TARGETS))
        point = decisions[-1].point
    return decisions


@pytest.mark.parametrize("grid", [GPU, CPU], ids=["gpu", "cpu"])
@settings(max_examples=60, deadline=None)
@given(
    shown=st.lists(windows, max_size=8), slo_ms=st.floats(0.1, 1e4), cap_w=st.none() | st.floats(1.0, 500.0)
)
def test_whatever_it_sees_it_stays_on_the_grid_and_says_why(
    grid: OperatingGrid,
    shown: list[tuple[Traffic, EventReason, int | None, float | None]],
    slo_ms: float,
    cap_w: float | None,
) -> None:
    policy, point = PredictivePolicy(grid), grid.default
    targets = Targets(slo_p99_ms=slo_ms, power_cap_w=cap_w)
    for traffic, reasons, clock, joules in shown:
        reading = DeviceReading(energy=energy(joules), event_reasons=reasons, sm_clock_mhz=clock)
        decision = policy.decide(Window(0.0, 1.0, point, traffic, reading), targets)
        assert decision.point in grid
        assert decision.reason
        assert "\n" not in decision.reason
        assert decision.predicted_revenue_per_s is None or not math.isnan(decision.predicted_revenue_per_s)
        point = decision.point


def test_it_lowers_the_clock_in_steps_and_settles() -> None:
    decisions = run(PredictivePolicy(GPU), GPU, 40)
    clocks = [decision.point.sm_clock_mhz or 0 for decision in decisions]
    assert clocks[-1] < 0.8 * CLOCKS[-1]
    assert all(after >= 0.75 * before for before, after in pairwise(clocks))
    assert sum(before != after for before, after in pairwise(clocks[-20:])) <= 2, "it does not wander"


def test_a_move_is_explained_by_its_rival() -> None:
    moves = [decision for decision in run(PredictivePolicy(GPU), GPU, 4) if decision.point != GPU.default]
    assert moves[0].runner_up is not None
    assert moves[0].runner_up_revenue_per_s is not None
    assert moves[0].predicted_revenue_per_s >= moves[0].runner_up_revenue_per_s
    for part in (str(moves[0].point), str(moves[0].runner_up), "images/s", "p99", " W"):
        assert part in moves[0].reason


def test_throttled_and_small_windows_teach_nothing() -> None:
    for bad in (
        window(GPU.default, watts=300.0, reasons=EventReason.HW_POWER_BRAKE),
        window(GPU.default, watts=300.0, reasons=EventReason.SW_THERMAL_SLOWDOWN | EventReason.GPU_IDLE),
        window(GPU.default, rate=5, watts=300.0),
        window(GPU.default, rate=0, watts=300.0),
    ):
        policy = PredictivePolicy(GPU)
        decisions = [policy.decide(bad, TARGETS) for _ in range(10)]
        assert {decision.point for decision in decisions} == {GPU.default}
        assert {decision.predicted_revenue_per_s for decision in decisions} == {None}


def test_a_throttled_window_changes_no_prediction() -> None:
    taught, disturbed = PredictivePolicy(GPU), PredictivePolicy(GPU)
    for policy in (taught, disturbed):
        run(policy, GPU, 1)
    slow = window(GPU.default, watts=290.0, reasons=EventReason.HW_THERMAL_SLOWDOWN)
    assert "throttled" in disturbed.decide(slow, TARGETS).reason
    taught.decide(window(GPU.default, rate=1000, watts=220.0, reasons=EventReason.HW_SLOWDOWN), TARGETS)
    good = window(GPU.default, watts=220.0)
    assert disturbed.decide(good, TARGETS) == taught.decide(good, TARGETS)


def test_the_window_of_a_clock_change_teaches_nothing() -> None:
    policy = PredictivePolicy(GPU)
    moved = next(d.point for d in run(policy, GPU, 4) if d.point != GPU.default)
    other = OperatingPoint(moved.batch_limit, GPU.sm_clocks_mhz[0])
    assert "settling" in policy.decide(window(other, watts=50.0), TARGETS).reason


@pytest.mark.parametrize("sign", [{"late": 200}, {"queued": 5000}], ids=["late", "queued"])
def test_trouble_sends_it_to_the_fast_point_at_once(sign: dict[str, int]) -> None:
    policy = PredictivePolicy(GPU)
    point = run(policy, GPU, 30)[-1].point
    assert point.sm_clock_mhz < CLOCKS[-1]
    decision = policy.decide(window(point, watts=100.0, **sign), TARGETS)
    assert decision.point.sm_clock_mhz == CLOCKS[-1]
    assert "SLO" in decision.reason
    calm = policy.decide(window(decision.point, watts=220.0), TARGETS)
    calmer = policy.decide(window(calm.point, watts=220.0), TARGETS)
    assert calmer.point == calm.point == decision.point, "one calm window is not enough to leave"


def test_a_few_late_images_are_no_trouble() -> None:
    policy = PredictivePolicy(GPU)
    point = run(policy, GPU, 30)[-1].point
    assert policy.decide(window(point, watts=100.0, late=5), TARGETS).point == point


def test_without_energy_and_clocks_it_limits_batches_to_what_the_slo_allows() -> None:
    decisions = run(PredictivePolicy(CPU), CPU, 10, rate=200)
    assert decisions[-1].point.sm_clock_mhz is None
    assert "not measured" in decisions[-1].reason
    tight = Targets(slo_p99_ms=10.0)
    policy, point = PredictivePolicy(CPU), CPU.default
    for _ in range(10):
        point = policy.decide(window(point, rate=200), tight).point
    assert 2 * (2.0 + 0.2 * point.batch_limit) <= 10.0
    assert point.batch_limit < decisions[-1].point.batch_limit


def test_it_raises_the_batch_limit_again_when_the_load_needs_it() -> None:
    policy, point = PredictivePolicy(CPU), OperatingPoint(1)
    for rate in (200, 200, 200, 1500, 1500, 1500, 1500):
        point = policy.decide(window(point, rate=rate), TARGETS).point
    assert point.batch_limit / (0.002 + 0.0002 * point.batch_limit) > 1500


def test_it_obeys_a_power_cap() -> None:
    policy, point = PredictivePolicy(GPU), GPU.default
    capped = Targets(slo_p99_ms=60.0, energy_price_per_kwh=0.0, carbon_price_per_kg=0.0, power_cap_w=120.0)
    for _ in range(30):
        watts = 20 + 200 * (point.sm_clock_mhz / 1500) ** 2
        point = policy.decide(window(point, watts=watts), capped).point
    assert 20 + 200 * (point.sm_clock_mhz / 1500) ** 2 <= 1.05 * 120


def test_without_clock_in_the_window_it_decides_on_batches_only() -> None:
    policy, point = PredictivePolicy(GPU), OperatingPoint(64, None)
    for late in (0, 0, 0, 300, 0):
        point = policy.decide(window(point, late=late), TARGETS).point
        assert point.sm_clock_mhz is None
        assert point.batch_limit in GPU.batch_limits
