"""The default setting is held by lot, and what governing saves is measured against it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.governor import Governor
from optimizer.holdback import (
    BESIDE_WINDOWS,
    EPISODE_WINDOWS,
    LEAST_COMPARISONS,
    Holdback,
    interval,
    student_t,
)
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision
from optimizer.surge import Tripwire
from optimizer.targets import Targets
from optimizer.telemetry import DeviceReading, Energy, EnergySource, SoFar, Traffic, Window

POINT = OperatingPoint(8, 1000)
GRID = OperatingGrid((4, 8), (500, 1000))
GOVERNED = OperatingPoint(4, 500)


def window(watts: float | None, at_s: float = 0.0) -> Window:
    energy = Energy(watts, EnergySource.SIMULATED) if watts is not None else DeviceReading().energy
    return Window(at_s, at_s + 1.0, POINT, Traffic(arrived=1), DeviceReading(energy=energy))


def play(
    holdback: Holdback,
    windows: int,
    *,
    governed_w: float = 100.0,
    default_w: float = 150.0,
    trend_w: float = 0.0,
) -> int:
    """Let windows go by; return how many ran at the default setting. Revenue is minus the watts."""
    held = 0
    for number in range(windows):
        watts = (default_w if holdback.holds else governed_w) + trend_w * number
        held += holdback.holds
        holdback.observe(window(watts), -watts)
    return held


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_share_held_back_is_that_asked_for(share: float) -> None:
    held = play(Holdback(share, Random(3)), 100_000)
    assert held / 100_000 == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.51])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share held back"):
        Holdback(share, Random(0))


def test_what_is_saved_is_the_difference_even_while_the_load_rises() -> None:
    holdback = Holdback(0.2, Random(1))
    play(holdback, 2000, trend_w=0.5)
    saving = holdback.saving
    assert saving.comparisons > 20
    assert saving.power_w is not None
    assert saving.revenue_per_s is not None
    assert saving.power_w.mean == pytest.approx(50.0, abs=1.0)
    assert saving.revenue_per_s.mean == pytest.approx(50.0, abs=1.0)
    assert saving.source is EnergySource.SIMULATED


def test_too_few_comparisons_say_nothing() -> None:
    holdback = Holdback(0.5, Random(1))
    while holdback.saving.comparisons < LEAST_COMPARISONS - 1:
        play(holdback, 1)
    assert holdback.saving.revenue_per_s is None
    while holdback.saving.comparisons < LEAST_COMPARISONS:
        play(holdback, 1)
    assert holdback.saving.revenue_per_s is not None


def test_energy_that_was_not_measured_is_not_made_up() -> None:
    holdback = Holdback(0.5, Random(1))
    for number in range(400):
        holdback.observe(window(None if number == 40 else 100.0), 1.0)
    assert holdback.saving.comparisons > LEAST_COMPARISONS
    assert holdback.saving.revenue_per_s is not None
    bare = Holdback(0.5, Random(1))
    for _ in range(400):
        bare.observe(window(None), 1.0)
    assert bare.saving.power_w is None


def test_an_abandoned_episode_compares_nothing_and_lets_go() -> None:
    holdback = Holdback(0.5, Random(1))
    while not holdback.holds:
        play(holdback, 1)
    holdback.abandon()
    assert not holdback.holds
    play(holdback, BESIDE_WINDOWS - 1)
    assert not holdback.holds, "there must be governed windows to compare with"
    assert holdback.saving.comparisons == 0


def test_an_episode_lasts_as_long_as_it_says() -> None:
    holdback, lengths, length = Holdback(0.3, Random(5)), [], 0
    for _ in range(2000):
        if holdback.holds:
            length += 1
        elif length:
            lengths.append(length)
            length = 0
        play(holdback, 1)
    assert set(lengths) == {EPISODE_WINDOWS}


@pytest.mark.parametrize(("degrees", "expected"), [(4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)])
def test_students_t(degrees: int, expected: float) -> None:
    assert student_t(degrees) == pytest.approx(expected, rel=0.005)


def test_the_interval_covers_the_truth_as_often_as_it_claims() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for _ in range(2000):
        found = interval(random.normal(3.0, 2.0, 8).tolist())
        assert found is not None
        covered += found.low <= 3.0 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


# In the governor


class Plant:
    def __init__(self) -> None:
        self.points: list[OperatingPoint] = []
        self.wires: list[Tripwire | None] = []

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        return Traffic(arrived=5, completed=5), DeviceReading()

    def act(self, point: OperatingPoint) -> None:
        self.points.append(point)

    def so_far(self) -> SoFar:
        return SoFar({}, 0)

    def watch(self, wire: Tripwire | None, sound: object) -> None:
        self.wires.append(wire)


class Frugal:
    name = "frugal"

    def decide(self, window: Window, targets: Targets) -> Decision:
        return Decision(GOVERNED, "as always", alarm=Alarm(Tripwire(3), GRID.default))


def governor(plant: Plant, time_of_day: Callable[[], float] | None = None) -> Governor:
    times = iter(range(10_000))
    return Governor(
        plant,
        Frugal(),
        GRID,
        Targets(),
        lambda: float(next(times)),
        time_of_day=time_of_day,
        hear=list,
        holdback=Holdback(0.5, Random(2)),
    )


def test_the_governor_holds_the_default_setting_and_says_so() -> None:
    plant = Plant()
    made = governor(plant)
    for _ in range(60):
        record = made.step()
        assert made.point == (GRID.default if record.held_back else GOVERNED)
        assert record.decision.point == GOVERNED
        assert (plant.wires[-1] is None) == record.held_back, "the default setting is its own refuge"
    assert made.holdback is not None
    assert made.holdback.saving.comparisons > 0
    assert GRID.default in plant.points[1:]


@pytest.mark.parametrize("order", ["pin", "pause"])
def test_the_operators_orders_come_first(order: str) -> None:
    made = governor(Plant())
    while not made.step().held_back:
        pass
    if order == "pin":
        made.pin(GOVERNED)
    made.paused = order == "pause"
    assert not any(made.step().held_back for _ in range(50))


@pytest.mark.parametrize(
    "changed", [Targets(form="edp"), Targets(slo_p99_ms=50.0), Targets(energy_price_per_kwh=9.0)]
)
def test_what_was_saved_under_other_targets_is_not_mixed_in(changed: Targets) -> None:
    made = governor(Plant())
    assert made.holdback is not None
    while made.holdback.saving.comparisons < LEAST_COMPARISONS or not made.holdback.holds:
        made.step()
    made.targets, compared = changed, made.holdback.saving.comparisons
    assert not made.step().held_back
    assert (made.holdback.saving.comparisons, made.holdback.saving.dropped) == (0, compared)
    assert made.holdback.saving.revenue_per_s is None
    while made.holdback.saving.comparisons < LEAST_COMPARISONS:
        made.step()


def test_a_comparison_in_which_the_price_changes_is_given_up_and_those_before_stay() -> None:
    now_s = [0.0]
    made = governor(Plant(), lambda: now_s[0])
    assert made.holdback is not None
    made.targets = Targets(energy_price_per_kwh=PriceSchedule((PriceStep(0.0, 0.1), PriceStep(500.0, 0.4))))
    while made.holdback.saving.comparisons < LEAST_COMPARISONS or not made.holdback.holds:
        made.step()
    compared, now_s[0] = made.holdback.saving.comparisons, 600.0
    assert not any(made.step().held_back for _ in range(BESIDE_WINDOWS))
    assert made.holdback.saving.comparisons == compared
