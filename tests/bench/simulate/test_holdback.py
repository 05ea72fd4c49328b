"""What the holdback calls saved is what was saved: held against the whole run at the default setting."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
import pytest

from bench.simulate import run as simulating
from bench.simulate.run import simulate, simulate_fixed
from bench.simulate.scenario import Scenario, default_point
from optimizer.governor import Governor
from optimizer.holdback import Holdback
from optimizer.policies.boulton import BoultonPolicy
from optimizer.targets import Targets
from optimizer.twin.profile import load_profile

DURATION_S = 300.0


def test_the_saving_that_is_measured_is_the_true_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    arrivals = np.sort(random.uniform(0.0, DURATION_S, random.poisson(800.0 * DURATION_S)))
    # cheap images: where a second's few late ones cost more than its energy, minutes do not average them out
    targets = Targets(slo_p99_ms=50.0, price_per_1000_images=1e-4, late_penalty_per_1000_images=1e-4)
    scenario = Scenario(load_profile("v100"), "resnet50", arrivals, DURATION_S, targets, 1)
    governed, default = simulate(scenario, BoultonPolicy), simulate_fixed(scenario, default_point(scenario))
    holdback = Holdback(0.2, Random(3))
    monkeypatch.setattr(simulating, "Governor", partial(Governor, holdback=holdback))
    simulate(scenario, BoultonPolicy)
    saving = holdback.saving
    assert saving.comparisons >= 10
    assert saving.power_w is not None
    assert saving.revenue_per_s is not None
    assert saving.power_w.mean == pytest.approx((default.energy_j - governed.energy_j) / DURATION_S, rel=0.03)
    truth_per_s = (governed.revenue - default.revenue) / DURATION_S
    assert saving.revenue_per_s.mean == pytest.approx(truth_per_s, rel=0.05)
    assert saving.revenue_per_s.high - saving.revenue_per_s.low < 0.1 * truth_per_s
