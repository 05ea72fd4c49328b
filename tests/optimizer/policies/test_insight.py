"""What our policy tells of what it has learned, against what the plant really does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fluid_plant import CLOCKS, GRID, FluidPlant, batch_s

from optimizer.governor import Governor
from optimizer.insight import Insightful
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Policy
from optimizer.policies.registry import make_policy
from optimizer.targets import Targets

RATE_PER_S = 2000.0
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
