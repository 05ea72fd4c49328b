from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bench.simulate.run import Run, simulate, simulate_at, simulate_fixed
from bench.simulate.scenario import Scenario, default_point, grid_of
from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Alarm, Decision, Policy
from optimizer.surge import Tripwire
from optimizer.targets import JOULES_PER_KWH, Targets
from optimizer.telemetry import Window
from optimizer.twin.arrivals import poisson, steps
from optimizer.twin.gpu_profile import Noise
from optimizer.twin.profile import load_profile

V100 = load_profile("v100")
TARGETS = Targets(slo_p99_ms=50.0)


def scenario(rate: float = 800.0, duration_s: float = 5.0, **changes: object) -> Scenario:
    base = Scenario(V100, "resnet50", poisson(rate, duration_s, seed=1), duration_s, TARGETS, seed=1)
    return replace(base, **changes)


class Playing:
    """Plays settings one after the other, and stays at the last; sounds the alarm if told to."""

    name = "playing"

    def __init__(self, *points: OperatingPoint, alarm: Alarm | None = None) -> None:
        self._points = list(points)
        self._alarm = alarm

    def decide(self, window: Window, targets: Targets) -> Decision:
        point = self._points.pop(0) if len(self._points) > 1 else self._points[0]
        return Decision(point, "next", alarm=self._alarm)


class Counting:
    """Learns how often it was asked."""

    name = "counting"

    def __init__(self, grid: OperatingGrid) -> None:
        self._point = grid.default
        self.count = 0

    def decide(self, window: Window, targets: Targets) -> Decision:
        self.count += 1
        return Decision(self._point, "counted")

    def export_state(self) -> Mapping[str, object]:
        return {"count": self.count}

    def import_state(self, state: Mapping[str, object]) -> None:
        count = state["count"]
        if not isinstance(count, int):
            raise ValueError("count must be a number")
        self.count = count

    def forget(self) -> None:
        self.count = 0


def default(grid: OperatingGrid) -> Policy:
    return Playing(grid.default)


def test_the_grid_is_every_batch_with_every_clock_and_the_default_is_its_corner() -> None:
    grid = grid_of(scenario(max_batch=32))
    assert grid.batch_limits == tuple(range(1, 33))
    assert grid.sm_clocks_mhz == V100.sm_clocks_mhz
    assert default_point(scenario(max_batch=32)) == OperatingPoint(32, V100.boost_clock_mhz) == grid.default


@pytest.mark.parametrize("rate", [200.0, 3000.0])
def test_a_policy_that_stays_at_the_default_earns_what_the_default_setting_earns(rate: float) -> None:
    quiet = scenario(rate, profile=replace(V100, noise=Noise()))
    governed, fixed = simulate(quiet, default), simulate_fixed(quiet, default_point(quiet))
    assert governed.latency_ms == fixed.latency_ms
    assert governed.energy_j == pytest.approx(fixed.energy_j)
    assert governed.revenue == pytest.approx(fixed.revenue)
    assert (governed.images_arrived, governed.images_completed, governed.images_late) == (
        fixed.images_arrived,
        fixed.images_completed,
        fixed.images_late,
    )
    assert governed.clock_changes == 0


def test_fast_and_production_queue_agree_within_noise() -> None:
    noisy, point = scenario(2000.0), OperatingPoint(32, 1095)
    production, fast = simulate_at(noisy, point), simulate_fixed(noisy, point)
    assert production.energy_j == pytest.approx(fast.energy_j, rel=2e-3)
    assert production.revenue == pytest.approx(fast.revenue, rel=1e-3)
    assert production.latency_ms["p99"] == pytest.approx(fast.latency_ms["p99"], rel=0.03)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def essence(run: Run) -> tuple[object, ...]:
        return run.records, run.latency_ms, run.energy_j, run.revenue

    first, second, other = (simulate(scenario(seed=seed), default) for seed in (1, 1, 2))
    assert essence(first) == essence(second)
    assert essence(first) != essence(other)


def test_what_is_unanswered_at_the_end_is_late_and_profit_is_the_sum_of_its_parts() -> None:
    run = simulate_at(scenario(5000.0), OperatingPoint(1, 135))
    assert run.images_arrived > run.images_completed > 0
    assert run.images_late >= run.images_arrived - run.images_completed
    in_time = run.images_arrived - run.images_late
    earned = (in_time * TARGETS.price_per_1000_images - run.images_late * 0.001) / 1000.0
    assert run.revenue == pytest.approx(earned - TARGETS.price_per_joule * run.energy_j)
    assert run.images_per_joule == pytest.approx(run.images_completed / run.energy_j)


def test_windows_add_up_to_the_run() -> None:
    run = simulate(scenario(interval_s=0.5), default)
    assert len(run.records) == 10
    assert sum(record.window.traffic.arrived for record in run.records) == run.images_arrived
    joules = sum(record.window.device.energy.joules or 0.0 for record in run.records)
    assert joules == pytest.approx(run.energy_j, rel=0.03), "but for the drain and the counter's period"


def test_clock_changes_and_settings_in_force_are_those_decided() -> None:
    played = (OperatingPoint(64, 1095), OperatingPoint(32, 1095), OperatingPoint(32, 607))
    run = simulate(scenario(), lambda grid: Playing(*played))
    assert [record.window.point for record in run.records[1:4]] == list(played)
    assert run.clock_changes == 2
    assert run.decide_us_p99 > 0.0
    assert run.real_time_factor > 0.0


def test_the_alarm_takes_refuge_between_two_decisions() -> None:
    surge = steps([(2.2, 200.0), (1.8, 4000.0)], seed=1)
    low, refuge = OperatingPoint(4, 202), OperatingPoint(128, 1530)
    played = scenario(arrivals_s=surge, duration_s=4.0)
    careless = simulate(played, lambda grid: Playing(low))
    careful = simulate(played, lambda grid: Playing(low, low, low, refuge, alarm=Alarm(Tripwire(20), refuge)))
    assert careful.records[2].window.point == refuge, "the window in which the surge came"
    assert careful.images_late < 0.5 * careless.images_late


def test_what_was_learned_is_handed_on() -> None:
    first = simulate(scenario(duration_s=5.0), Counting)
    assert first.state == {"count": 5}
    assert simulate(scenario(), Counting, first.state).state == {"count": 10}
    with pytest.raises(ValueError, match="count must be a number"):
        simulate(scenario(), Counting, {"count": "many"})
    assert simulate(scenario(), default, {"count": 1}).state is None


def test_progress_is_told_at_every_turn() -> None:
    told: list[float] = []
    simulate(scenario(), default, progress=told.append)
    assert told == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_energy_is_priced_at_the_time_of_day_it_is_used() -> None:
    """Midnight to 00:01 is free, then it costs; energy alone counts."""
    schedule = PriceSchedule((PriceStep(0.0, 0.0), PriceStep(60.0, 0.4)))
    targets = Targets(
        slo_p99_ms=1000.0,
        price_per_1000_images=0.0,
        carbon_price_per_kg=0.0,
        energy_price_per_kwh=schedule,
    )
    empty = scenario(
        arrivals_s=np.empty(0), duration_s=79.0, targets=targets, profile=replace(V100, noise=Noise())
    )
    run = simulate_fixed(empty, default_point(empty))
    paid_j = V100.idle_power_w * 20.0
    assert run.revenue == pytest.approx(-0.4 * paid_j / JOULES_PER_KWH)
    assert simulate(empty, default).revenue == pytest.approx(run.revenue)


@pytest.mark.parametrize("form", ["energy", "edp", "ed2p", "zeus"])
def test_other_forms_score_the_run_as_a_whole(form: str) -> None:
    asked = scenario(targets=replace(TARGETS, form=form))
    run = simulate_fixed(asked, OperatingPoint(16, 810))
    if form == "energy":
        assert run.revenue == pytest.approx(-run.energy_j / (run.images_arrived - run.images_late))
    assert run.revenue < 0.0
    assert run.images_late == 0


def test_impatient_clients_are_refused_rather_than_answered_late() -> None:
    hurried = scenario(5000.0, deadline_s=0.05, profile=replace(V100, noise=Noise()))
    run = simulate_fixed(hurried, OperatingPoint(8, 810))
    assert run.images_late == run.images_arrived - run.images_completed > 0
    assert run.latency_ms["p99"] is not None
    assert run.latency_ms["p99"] <= 50.0 + 1e-6


def test_nothing_arrives() -> None:
    empty = scenario(arrivals_s=np.empty(0))
    for run in (simulate(empty, default), simulate_fixed(empty, default_point(empty))):
        assert (run.images_arrived, run.images_late) == (0, 0)
        assert run.latency_ms == {"p50": None, "p95": None, "p99": None}
        assert run.energy_j == pytest.approx(V100.idle_power_w * empty.end_s)
        assert run.images_per_joule == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals_s": np.array([2.0, 1.0])},
        {"arrivals_s": np.array([1.0, 6.0])},
        {"arrivals_s": np.array([-1.0, 2.0])},
        {"arrivals_s": np.zeros((2, 2))},
        {"max_batch": 0},
        {"interval_s": 0.0},
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        scenario(**changes)


@pytest.mark.parametrize(("rate", "slo_ms"), [(150.0, 3.4), (100.0, 3.2)])
def test_an_slo_that_cannot_quite_be_kept_is_no_reason_to_give_up(rate: float, slo_ms: float) -> None:
    arrivals_s = poisson(rate, 100.0, seed=3)
    hard = Scenario(load_profile("t4"), "resnet50", arrivals_s, 100.0, Targets(slo_p99_ms=slo_ms), seed=3)
    default = simulate_fixed(hard, default_point(hard))
    ours = simulate(hard, BoultonPolicy)
    assert 0.01 < default.images_late / default.images_arrived < 0.15
    assert ours.images_late <= 1.1 * default.images_late
    assert ours.latency_ms["p99"] <= 1.2 * default.latency_ms["p99"]


@pytest.mark.parametrize("cap_w", [32.0, 60.0])
def test_a_power_cap_that_pauses_can_keep_is_kept_with_the_slo(cap_w: float) -> None:
    targets = Targets(slo_p99_ms=100.0, power_cap_w=cap_w)
    rare = Scenario(V100, "resnet50", poisson(72.0, 40.0, seed=1), 40.0, targets, seed=1)
    ours = simulate(rare, BoultonPolicy)
    assert ours.images_late == 0
    for record in ours.records[20:]:
        assert record.decision.infeasible is None
        assert (record.window.device.energy.joules or 0.0) <= cap_w


@pytest.mark.parametrize(
    ("gpu", "model", "rate", "form", "eta"),
    [
        ("a100", "vgg16", 800.0, "edp", 0.5),
        ("v100", "resnet50", 1500.0, "edp", 0.5),
        ("h200", "resnet50", 2000.0, "edp", 0.5),
        ("h200", "resnet50", 2000.0, "ed2p", 0.5),
        ("v100", "resnet50", 1500.0, "zeus", 0.9),
        ("a100", "vgg16", 800.0, "energy", 0.5),
    ],
)
def test_the_other_forms_are_pursued_as_well(
    gpu: str, model: str, rate: float, form: str, eta: float
) -> None:
    targets = Targets(slo_p99_ms=100.0, form=form, zeus_eta=eta)
    asked = Scenario(load_profile(gpu), model, poisson(rate, 60.0, seed=5), 60.0, targets, seed=2)
    fast = default_point(asked)
    clocks = load_profile(gpu).sm_clocks_mhz[::6]
    default = simulate_fixed(asked, fast).revenue
    best = max(simulate_fixed(asked, replace(fast, sm_clock_mhz=clock)).revenue for clock in clocks)
    ours = simulate(asked, BoultonPolicy)
    assert ours.images_late <= 0.01 * ours.images_arrived
    if best > default + 0.02 * abs(default):
        assert ours.revenue > default + 0.6 * (best - default)
    else:
        assert ours.revenue > default - 0.02 * abs(default)
