"""A card that grows too hot: what our policy makes of it, and that the baselines suffer the same."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from bench.simulate.oracle import static_oracle
from bench.simulate.run import Run, simulate, simulate_at, simulate_fixed
from bench.simulate.scenario import Scenario, default_point
from optimizer.governor import Record
from optimizer.operating_point import OperatingPoint
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.rivals.default import default
from optimizer.targets import Targets
from optimizer.telemetry import EventReason
from optimizer.twin.arrivals import poisson
from optimizer.twin.gpu_profile import Noise
from optimizer.twin.profile import load_profile
from optimizer.twin.slowdown import Slowdown, edges_s, held_mhz

V100 = load_profile("v100")
HOT = Slowdown(427, 45.0, 55.0)
DURATION_S = 70.0


def scenario(*slowdowns: Slowdown, rate: float = 1800.0, duration_s: float = DURATION_S) -> Scenario:
    arrivals_s = poisson(rate, duration_s, seed=1)
    targets = Targets(slo_p99_ms=50.0)
    return Scenario(V100, "resnet50", arrivals_s, duration_s, targets, seed=1, slowdowns=slowdowns)


@pytest.fixture(scope="module")
def played() -> Run:
    return simulate(scenario(HOT), BoultonPolicy)


def between(run: Run, start_s: float, end_s: float) -> list[Record]:
    return [record for record in run.records if start_s < record.window.end_s <= end_s]


def late_share(records: list[Record]) -> float:
    return sum(r.window.traffic.late for r in records) / sum(r.window.traffic.arrived for r in records)


def test_the_card_says_that_it_is_too_hot_and_runs_no_faster_than_it_may(played: Run) -> None:
    for record in played.records:
        device = record.window.device
        throttled = EventReason.SW_THERMAL_SLOWDOWN in device.event_reasons
        assert throttled == (HOT.start_s <= record.window.end_s <= HOT.end_s)
    hot = between(played, HOT.start_s, HOT.end_s - 0.5)
    assert all((record.window.device.sm_clock_mhz or 0) <= HOT.clock_mhz for record in hot)
    assert late_share(hot) > 0.01, "it was felt"


def test_nothing_is_learned_while_the_card_is_throttled(played: Run) -> None:
    for record in between(played, HOT.start_s, HOT.end_s):
        assert record.decision.learned.startswith("nothing: the device was throttled (SW_THERMAL_SLOWDOWN)")
    state: Any = played.state
    physics = V100.model("resnet50")
    for batch, clock_mhz, seconds, *_ in state["machine"]["times"]:
        assert seconds == pytest.approx(physics.batch_s(round(batch), round(clock_mhz)), rel=0.05)


def test_it_asks_for_speed_while_answers_are_late_and_goes_back_to_where_it_was(played: Run) -> None:
    hot = between(played, HOT.start_s, HOT.end_s)
    assert V100.boost_clock_mhz in {record.decision.point.sm_clock_mhz for record in hot}
    before = between(played, HOT.start_s - 5.0, HOT.start_s - 0.5)
    after = between(played, HOT.end_s + 3.0, DURATION_S)  # the last retry failed as the heat ended
    assert late_share(after) <= 0.01, "the SLO is kept again"
    usual_mhz = before[-1].window.point.sm_clock_mhz
    assert usual_mhz is not None
    assert usual_mhz < 0.8 * V100.boost_clock_mhz
    for record in after:
        assert record.window.point.sm_clock_mhz == pytest.approx(usual_mhz, rel=0.1)


LONG = Slowdown(427, 45.0, 135.0)


@pytest.fixture(scope="module")
def played_long() -> Run:
    return simulate(scenario(LONG, duration_s=145.0), BoultonPolicy)


def test_the_longer_the_heat_lasts_the_rarer_are_answers_late(played_long: Run) -> None:
    hot = between(played_long, LONG.start_s, LONG.end_s)
    late_s = [r.window.end_s for r in hot if r.window.traffic.late > 0.01 * r.window.traffic.completed]
    tried_s = [later for earlier, later in pairwise([0.0, *late_s]) if later - earlier > 1.5]
    gaps_s = [later - earlier for earlier, later in pairwise(tried_s)]
    assert len(tried_s) >= 3, "it does try again"
    assert all(later > earlier for earlier, later in pairwise(gaps_s))
    assert late_share(hot) < 0.01, "the SLO is kept on the whole"


def test_it_is_back_where_it_was_as_soon_as_the_card_takes_its_clocks_again(played_long: Run) -> None:
    """The last retry had failed too short a time ago for another."""
    before = between(played_long, LONG.start_s - 5.0, LONG.start_s - 0.5)[-1].window.point.sm_clock_mhz
    at_the_end = between(played_long, LONG.end_s - 1.5, LONG.end_s - 0.5)[-1]
    assert at_the_end.decision.point.sm_clock_mhz == V100.boost_clock_mhz
    assert "the device held its clock down" in at_the_end.decision.reason
    back = between(played_long, LONG.end_s, LONG.end_s + 1.5)[-1]
    assert back.decision.point.sm_clock_mhz == pytest.approx(before, rel=0.1)
    assert late_share(between(played_long, LONG.end_s + 0.5, 145.0)) <= 0.01


QUIET = replace(scenario(HOT, duration_s=60.0), profile=replace(V100, noise=Noise()))


@pytest.mark.parametrize("limit", [4, 128])
def test_the_fast_simulation_of_a_setting_is_slowed_down_as_the_production_queue_is(limit: int) -> None:
    overlapping = replace(QUIET, slowdowns=(HOT, Slowdown(1005, 3.0, 20.0), Slowdown(202, 59.5, 99.0)))
    for heat in (QUIET, overlapping):
        capped = replace(heat, profile=replace(heat.profile, power_limit_w=150.0, power_cap_settle_s=0.3))
        for each in (heat, capped):
            point = OperatingPoint(limit, 1530)
            production, fast = simulate_at(each, point), simulate_fixed(each, point)
            assert fast.latency_ms == production.latency_ms
            assert fast.images_late == production.images_late
            assert fast.energy_j == pytest.approx(production.energy_j)


def test_the_default_governed_suffers_what_the_default_setting_suffers() -> None:
    governed, fixed = simulate(QUIET, default), simulate_fixed(QUIET, default_point(QUIET))
    assert governed.latency_ms == fixed.latency_ms
    assert governed.energy_j == pytest.approx(fixed.energy_j)
    cool = simulate_fixed(replace(QUIET, slowdowns=()), default_point(QUIET))
    assert (fixed.latency_ms["p99"] or 0.0) > 1.5 * (cool.latency_ms["p99"] or math.inf)


def test_the_best_setting_in_hindsight_is_sought_on_the_hot_card() -> None:
    throughout = scenario(Slowdown(607, 0.0, 10.0), rate=500.0, duration_s=3.0)
    _, hot = static_oracle(replace(throughout, max_batch=8), processes=1)
    _, cool = static_oracle(replace(throughout, max_batch=8, slowdowns=()), processes=1)
    at_the_clock = simulate_fixed(replace(throughout, slowdowns=()), OperatingPoint(8, 607))
    assert hot.revenue >= at_the_clock.revenue
    assert hot.revenue <= cool.revenue


def test_a_slowdown_holds_from_its_start_until_its_end_and_is_no_floor() -> None:
    slowdowns = (Slowdown(600, 1.0, 3.0), Slowdown(500, 2.0, 4.0))
    assert [held_mhz(slowdowns, 1000, time_s) for time_s in (0.9, 1.0, 2.0, 3.0, 4.0)] == [
        1000,
        600,
        500,
        500,
        1000,
    ]
    assert held_mhz(slowdowns, 300, 2.5) == 300
    assert edges_s(slowdowns) == [1.0, 2.0, 3.0, 4.0]


def test_a_slowdown_to_a_clock_that_the_card_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="v100 cannot be slowed down to"):
        scenario(Slowdown(458, 0.0, 1.0))
