from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from optimizer.devices.gpu import DeviceError, DeviceGone
from optimizer.governor import CLOCK_RETRY_STEPS, Governor, Plant
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision, Policy
from optimizer.revenue import Targets, window_revenue
from optimizer.surge import Tripwire
from optimizer.telemetry import BatchTimes, Cut, DeviceReading, Energy, EnergySource, SoFar, Traffic, Window

GRID = OperatingGrid((1, 4, 16), (500, 1000))
SLOW = OperatingPoint(4, 500)


class FakePlant:
    def __init__(self) -> None:
        self.acts: list[OperatingPoint] = []
        self.slos_ms: list[float] = []
        self.refuses_clocks = False
        self.not_taken = ""

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        self.slos_ms.append(slo_ms)
        energy = Energy(5.0, EnergySource.SIMULATED)
        return Traffic(arrived=10, completed=10), DeviceReading(energy=energy, clock_not_taken=self.not_taken)

    def act(self, point: OperatingPoint) -> None:
        self.acts.append(point)
        if self.refuses_clocks and point.sm_clock_mhz is not None:
            raise DeviceError(f"no permission for {point.sm_clock_mhz} MHz")


class Scripted:
    """Answers what it is told, and keeps the windows it saw."""

    name = "scripted"

    def __init__(self, point: OperatingPoint = SLOW) -> None:
        self.point = point
        self.windows: list[Window] = []

    def decide(self, window: Window, targets: Targets) -> Decision:
        self.windows.append(window)
        return Decision(self.point, "as told")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def plant() -> FakePlant:
    return FakePlant()


def governor(plant: Plant, policy: Policy, targets: Targets | None = None) -> Governor:
    return Governor(plant, policy, GRID, targets or Targets(), Clock())


def test_the_loop_starts_at_the_default_and_acts_on_changes_only(plant: FakePlant) -> None:
    policy = Scripted()
    loop = governor(plant, policy)
    assert plant.acts == [], "constructing does nothing"
    loop.start()
    assert plant.acts == [GRID.default]
    for _ in range(3):
        loop.step()
    assert plant.acts == [GRID.default, SLOW]
    assert [window.point for window in policy.windows] == [GRID.default, SLOW, SLOW]


def test_windows_follow_each_other_without_gaps(plant: FakePlant) -> None:
    policy = Scripted()
    loop = governor(plant, policy)
    for _ in range(3):
        loop.step()
    spans = [(window.start_s, window.end_s) for window in policy.windows]
    assert [start_s for start_s, _ in spans[1:]] == [end_s for _, end_s in spans[:-1]]
    assert all(end_s > start_s for start_s, end_s in spans)


def test_a_record_holds_window_revenue_and_decision(plant: FakePlant) -> None:
    targets = Targets(price_per_1000_images=3.0)
    record = governor(plant, Scripted(), targets).step()
    assert record.window.traffic.completed == 10
    assert record.revenue == window_revenue(targets, record.window)
    assert record.decision.point == SLOW
    assert record.error is None


def test_targets_count_from_the_next_step(plant: FakePlant) -> None:
    loop = governor(plant, Scripted(), Targets(slo_p99_ms=50.0))
    loop.start()
    loop.step()
    loop.targets = Targets(slo_p99_ms=20.0)
    loop.step()
    assert plant.slos_ms == [50.0, 50.0, 20.0]


def test_stop_restores_the_default_and_gives_the_clock_back(plant: FakePlant) -> None:
    loop = governor(plant, Scripted())
    loop.step()
    assert loop.stop() is None
    assert plant.acts[-1] == OperatingPoint(16, None)
    loop.step()
    assert plant.acts[-2:] == [GRID.default, SLOW], "it can be started again"


def test_a_device_that_refuses_is_said_once_and_the_batch_still_governed(plant: FakePlant) -> None:
    policy = Scripted()
    loop = governor(plant, policy)
    loop.start()
    plant.refuses_clocks = True
    assert loop.step().error == "no permission for 500 MHz"
    policy.point = OperatingPoint(1, None)
    errors = [loop.step().error for _ in range(5)]
    assert errors == [None] * 5
    assert loop.point == OperatingPoint(1, None)
    assert policy.windows[-1].point == OperatingPoint(1, None), "the policy sees that no clock was set"


def test_a_clock_that_is_not_in_force_is_asked_for_again(plant: FakePlant) -> None:
    loop = governor(plant, Scripted())
    loop.step()
    loop.step()
    assert plant.acts == [GRID.default, SLOW]
    plant.not_taken = "somebody has set another"
    loop.step()
    plant.not_taken = ""
    loop.step()
    assert plant.acts == [GRID.default, SLOW, SLOW]


def test_a_clock_that_was_given_back_is_not(plant: FakePlant) -> None:
    loop = governor(plant, Scripted(OperatingPoint(4, None)))
    plant.not_taken = "it may still be in force"
    for _ in range(3):
        loop.step()
    assert plant.acts == [GRID.default, OperatingPoint(4, None)]


def test_a_refused_clock_is_tried_again_soon(plant: FakePlant) -> None:
    policy = Scripted()
    loop = governor(plant, policy)
    loop.start()
    plant.refuses_clocks = True
    loop.step()
    assert loop.clock_refused
    plant.refuses_clocks = False
    for _ in range(CLOCK_RETRY_STEPS[0]):
        loop.step()
    assert loop.point == OperatingPoint(4, 1000), "back at the clock's default"
    assert not loop.clock_refused
    loop.step()
    assert loop.point == SLOW


def test_a_clock_that_stays_refused_is_tried_less_often_but_never_given_up(plant: FakePlant) -> None:
    loop = governor(plant, Scripted())
    loop.start()
    plant.refuses_clocks = True
    steps = 60
    tried_at = []
    for number in range(steps):
        before = len(plant.acts)
        loop.step()
        if any(point.sm_clock_mhz is not None for point in plant.acts[before:]):
            tried_at.append(number)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried_at)]
    assert pauses[: len(CLOCK_RETRY_STEPS)] == list(CLOCK_RETRY_STEPS)
    assert set(pauses[len(CLOCK_RETRY_STEPS) :]) == {CLOCK_RETRY_STEPS[-1]}
    assert tried_at[-1] >= steps - CLOCK_RETRY_STEPS[-1]


def test_the_same_refusal_of_another_clock_is_not_said_again_until_a_clock_was_taken(
    plant: FakePlant,
) -> None:
    loop = governor(plant, Scripted())
    loop.start()
    plant.refuses_clocks = True
    said = [loop.step().error for _ in range(30)]
    assert said == ["no permission for 500 MHz"] + [None] * 29, "500 and 1000 MHz are refused for one reason"
    plant.refuses_clocks = False
    while loop.clock_refused:
        loop.step()
    plant.refuses_clocks = True
    assert loop.step().error == "no permission for 500 MHz", "a new outage is news"


def test_that_a_device_is_gone_is_not_said_again(plant: FakePlant) -> None:
    loop = governor(plant, Scripted())
    loop.start()

    def act(point: OperatingPoint) -> None:
        plant.acts.append(point)
        raise DeviceGone("it fell off the bus")

    plant.act = act
    assert [loop.step().error for _ in range(4)] == [None] * 4
    assert loop.clock_refused
    assert loop.point == replace(SLOW, sm_clock_mhz=None)


def test_a_clock_in_force_is_given_back_when_another_is_refused(plant: FakePlant) -> None:
    policy = Scripted()
    loop = governor(plant, policy)
    loop.step()
    assert plant.acts[-1] == SLOW
    plant.refuses_clocks = True
    policy.point = OperatingPoint(1, 1000)
    loop.step()
    assert plant.acts[-2:] == [OperatingPoint(1, 1000), OperatingPoint(1, None)]


def test_refusals_at_start_and_stop_are_returned_not_raised(plant: FakePlant) -> None:
    plant.refuses_clocks = True
    loop = governor(plant, Scripted(OperatingPoint(16, None)))
    record = loop.step()
    assert record.error == "no permission for 1000 MHz"
    assert loop.stop() is None, "giving the clock back was allowed"


class Watched(FakePlant):
    """A plant that keeps what it was told to watch for."""

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[Tripwire | None] = []

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        self.wires.append(wire)

    def so_far(self) -> SoFar:
        return SoFar({4: BatchTimes(3, 0.25 * len(self.acts))}, 10 * len(self.acts))


class Alarmed(Scripted):
    """Names a refuge, and another for when that does not do."""

    def decide(self, window: Window, targets: Targets) -> Decision:
        last = Alarm(Tripwire(40), GRID.default)
        return Decision(SLOW, "as told", alarm=Alarm(Tripwire(10), replace(SLOW, sm_clock_mhz=1000), last))


def test_at_a_refuge_it_watches_for_what_even_that_is_too_slow_for() -> None:
    plant = Watched()
    governor = Governor(plant, Alarmed(), GRID, Targets(), Clock(), hear=lambda: None)
    governor.step()
    assert plant.wires == [Tripwire(10)]
    governor.alarm()
    assert plant.wires == [Tripwire(10), Tripwire(40)]
    assert governor.point == replace(SLOW, sm_clock_mhz=1000)
    governor.alarm()
    assert plant.wires == [Tripwire(10), Tripwire(40)], "a wire is tripped once"
    assert governor.point == GRID.default
    assert governor.alarm() is None
    assert governor.point == GRID.default


def test_a_window_keeps_what_an_alarm_put_an_end_to() -> None:
    plant, policy = Watched(), Alarmed()
    governor = Governor(plant, policy, GRID, Targets(), Clock(), hear=lambda: None)
    governor.step()
    acts = len(plant.acts)
    governor.alarm()
    governor.alarm()
    seen = governor.step().window
    assert seen.cut is not None
    assert seen.start_s < seen.cut.at_s < seen.end_s
    expected = Cut(SLOW, {4: BatchTimes(3, 0.25 * acts)}, seen.cut.at_s, 10 * acts)
    assert seen.cut == expected, "the first clock, before it was left"
    assert seen.point == GRID.default
    assert governor.step().window.cut is None


def test_an_alarm_that_leaves_the_clock_alone_cuts_nothing() -> None:
    class Undelayed(Scripted):
        def decide(self, window: Window, targets: Targets) -> Decision:
            return Decision(SLOW, "as told", alarm=Alarm(Tripwire(10), replace(SLOW, batch_limit=1)))

    governor = Governor(Watched(), Undelayed(), GRID, Targets(), Clock(), hear=lambda: None)
    governor.step()
    governor.alarm()
    assert governor.step().window.cut is None
