"""What our policy tells of what it has learned, against what the plant really does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fluid_plant import CLOCKS, GRID, FluidPlant, batch_s
from numpy.typing import NDArray

from optimizer.devices.simulated import SimulatedGpu
from optimizer.governor import Governor
from optimizer.insight import Insightful
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Policy
from optimizer.policies.registry import make_policy
from optimizer.targets import Targets
from optimizer.twin.arrivals import poisson
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

RATE_PER_S = 2000.0
SECONDS = 60.0
TARGETS = Targets(slo_p99_ms=25.0)


def governed(policy: Policy, grid: OperatingGrid = GRID, steps: int = 20) -> None:
    plant = FluidPlant(RATE_PER_S)
    governor = Governor(plant, policy, grid, TARGETS, lambda: plant.now_s, hear=lambda: None)
    governor.start()
    for _ in range(steps):
        governor.step()


def test_settings_that_were_tried_are_told_as_they_were() -> None:
    policy = BoultonPolicy(GRID)
    governed(policy)
    insight = policy.insight()
    assert insight.tried
    for setting in insight.tried:
        assert setting.sm_clock_mhz in CLOCKS
        expected_ms = batch_s(setting.batch, setting.sm_clock_mhz) * 1e3
        assert setting.batch_ms == pytest.approx(expected_ms, rel=0.05)
        assert setting.power_w is not None
        assert setting.power_w > (insight.idle_power_w or 0.0) > 0.0
        assert 0.2 < setting.known <= 1.0
    order = [(setting.sm_clock_mhz, setting.batch) for setting in insight.tried]
    assert order == sorted(order)
    assert insight.rate_per_s == pytest.approx(RATE_PER_S, rel=0.05)
    assert min(insight.burstiness, insight.unevenness) >= 1.0
    assert 0.0 < insight.doubt <= 1.0


def test_requests_that_come_evenly_are_told_from_those_by_chance() -> None:
    ticking = evenness_of(np.arange(0.005, SECONDS, 0.01))
    assert ticking > 1.5
    assert evenness_of(poisson(100.0, SECONDS, seed=1)) < 1.3


def evenness_of(arrivals_s: NDArray[np.float64]) -> float:
    """Play single images on the simulated V100."""
    profile, clock = load_profile("v100"), SimulatedClock()
    gpu = SimulatedGpu(profile, clock=clock, rng_seed=1)
    server = SimulatedServer(gpu, "resnet50", clock, batch_limit=64)
    grid = OperatingGrid(tuple(range(1, 65)), profile.sm_clocks_mhz)
    policy = BoultonPolicy(grid)
    governor = Governor(server, policy, grid, Targets(slo_p99_ms=5.0), clock, hear=lambda: None)
    governor.start()
    server.run(arrivals_s, SECONDS, 1.0, governor.step)
    return policy.insight().evenness


def test_nothing_is_told_of_what_nothing_is_known_of() -> None:
    insight = BoultonPolicy(GRID).insight()
    assert insight.tried == ()
    assert insight.idle_power_w is None
    assert insight.rate_per_s == 0.0


def test_telling_changes_nothing() -> None:
    asked, other = BoultonPolicy(GRID), BoultonPolicy(GRID)
    for _ in range(3):
        governed(asked, steps=3)
        asked.insight()
        governed(other, steps=3)
    assert json.dumps(asked.export_state()) == json.dumps(other.export_state())


def test_where_the_clock_is_not_governed_no_clock_is_told() -> None:
    grid = replace(GRID, sm_clocks_mhz=())
    policy = BoultonPolicy(grid)
    governed(policy, grid)
    tried = policy.insight().tried
    assert tried
    assert {setting.sm_clock_mhz for setting in tried} == {None}


def test_what_was_saved_is_told_after_a_restart() -> None:
    before, after = BoultonPolicy(GRID), BoultonPolicy(GRID)
    governed(before)
    after.import_state(json.loads(json.dumps(before.export_state())))
    told = [(setting.batch, setting.sm_clock_mhz) for setting in after.insight().tried]
    assert told == [(setting.batch, setting.sm_clock_mhz) for setting in before.insight().tried]
    assert all(setting.power_w is not None for setting in after.insight().tried)


def test_ours_can_tell_and_those_that_learn_nothing_need_not() -> None:
    assert isinstance(BoultonPolicy(GRID), Insightful)
    assert not isinstance(make_policy("default", GRID, TARGETS, None), Insightful)
