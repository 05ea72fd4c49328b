from __future__ import annotations

import sys

import pytest
from fluid_plant import window

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.rivals.bayesian import BayesianPolicy
from optimizer.revenue import Targets
from optimizer.telemetry import Window

GRID = OperatingGrid(tuple(range(1, 129)), tuple(range(200, 1601, 10)))
SLO = Targets(slo_p99_ms=100.0)


def served(point: OperatingPoint, images: int = 1000, slow: float = 1.0) -> Window:
    """p99 in inverse proportion to the clock: 100 ms at 800 MHz; power rises with the clock."""
    mhz = point.sm_clock_mhz or 0
    return window(point, images=images, p99_ms=slow * 80_000 / mhz, watts=50.0 + mhz / 10.0)


class Driven:
    def __init__(self) -> None:
        self.policy = BayesianPolicy(GRID)
        self.point = GRID.default
        self.reason = ""

    def run(self, windows: int, images: int = 1000, slow: float = 1.0) -> list[OperatingPoint]:
        points = []
        for _ in range(windows):
            decision = self.policy.decide(served(self.point, images, slow), SLO)
            self.point, self.reason = decision.point, decision.reason
            points.append(self.point)
        return points


def test_it_begins_with_the_default_and_two_settings_near_it_3_s_each() -> None:
    default, second, third = GRID.default, OperatingPoint(128, 1440), OperatingPoint(96, 1280)
    assert Driven().run(8) == [default, default, second, second, second, third, third, third]


def test_it_never_tries_a_setting_twice_and_ends_within_20() -> None:
    driven = Driven()
    points = driven.run(120)
    assert points[-1] == points[-40]
    assert driven.reason.endswith("found")
    tried = {point for point in points if point != GRID.default}
    assert 3 <= len(tried) <= 20


def test_it_keeps_the_cheapest_setting_that_kept_the_slo() -> None:
    driven = Driven()
    points = driven.run(120)
    kept = [point.sm_clock_mhz for point in points if 80_000 / (point.sm_clock_mhz or 1) <= 100.0]
    assert driven.point.sm_clock_mhz == min(kept)
    assert 800 <= min(kept) <= 880, "which is close to the cheapest there is"


def test_a_missed_slo_ends_a_trial_at_once_and_is_recovered_from_at_the_default() -> None:
    driven = Driven()
    driven.run(3)
    assert driven.point == OperatingPoint(128, 1440)
    assert driven.run(1, slow=9.0) == [GRID.default], "500 ms missed the SLO in the first window"
    assert driven.run(3, slow=9.0) == [GRID.default] * 3, "it still waits for the queue to clear"
    assert driven.run(1) == [OperatingPoint(96, 1280)]


def test_it_begins_anew_when_the_load_has_changed_for_two_windows() -> None:
    driven = Driven()
    found = driven.run(120)[-1]
    assert driven.run(1, images=1300) == [found]
    assert driven.run(1, images=1000) == [found], "one window is no change"
    assert driven.run(2, images=1300) == [found, GRID.default]
    assert "load has changed" in driven.reason


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.gaussian_process", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'boulton\[tournament\]'"):
        BayesianPolicy(GRID)
