"""What the later half of each interval earns, held against the interval as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.simulate.run import Run, simulate
from bench.simulate.scenario import Scenario
from optimizer.operating_point import OperatingPoint
from optimizer.policies.fixed import FixedPolicy
from optimizer.targets import Targets
from optimizer.twin.arrivals import poisson
from optimizer.twin.gpu_profile import Noise
from optimizer.twin.profile import load_profile

V100 = load_profile("v100")
SECONDS, LOW_MHZ = 6.0, 607
SLOW_SWITCH = replace(V100, noise=Noise(), clock_switch_s=(0.4, 0.4))
ONLY_ENERGY = Targets(slo_p99_ms=50.0, price_per_1000_images=0.0, late_penalty_per_1000_images=0.0)
SCENARIO = Scenario(SLOW_SWITCH, "resnet50", poisson(800.0, SECONDS, seed=1), SECONDS, ONLY_ENERGY, seed=1)


def run(*, halves: bool) -> Run:
    low = OperatingPoint(128, LOW_MHZ)
    return simulate(SCENARIO, lambda _: FixedPolicy("low", low, "low"), halves=halves)


def test_looking_changes_nothing() -> None:
    looked, ran = run(halves=True), run(halves=False)
    assert looked.records == ran.records
    assert (looked.energy_j, looked.revenue) == (ran.energy_j, ran.revenue)
    assert ran.later_halves == ()


def test_the_decision_is_in_force_in_the_later_half_of_the_first_interval_after_it() -> None:
    ran = run(halves=True)
    whole = [record.revenue.total for record in ran.records]
    at_default, first, *settled = ran.later_halves
    usual = sum(settled) / len(settled)
    assert len(ran.later_halves) == len(whole)
    assert at_default < 1.2 * usual < 0.0, "the default setting uses more"
    assert first == pytest.approx(usual, rel=0.05)
    assert whole[0] < whole[1] < 1.05 * usual, "a part of the interval was at the default setting"


def test_both_halves_of_settled_intervals_earn_alike() -> None:
    ran = run(halves=True)
    whole = [record.revenue.total for record in ran.records][2:]
    assert sum(ran.later_halves[2:]) == pytest.approx(sum(whole), rel=0.05)
