from __future__ import annotations

from optimizer.queue_alarm import QueueAlarm
from optimizer.surge import Tripwire

WIRE = Tripwire(queued_images=4, rate_per_s=10.0, burst_images=3.0)


class Ear:
    def __init__(self) -> None:
        self.heard = 0

    def __call__(self) -> None:
        self.heard += 1


def watched(wire: Tripwire | None) -> tuple[QueueAlarm, Ear]:
    alarm, ear = QueueAlarm(), Ear()
    alarm.watch(wire, ear)
    return alarm, ear


def test_it_goes_off_once_when_more_wait_than_may() -> None:
    alarm, ear = watched(WIRE)
    alarm.see(4)
    assert not ear.heard
    alarm.see(5)
    alarm.see(6)
    assert ear.heard == 1


def test_it_goes_off_once_when_more_arrive_than_may() -> None:
    alarm, ear = watched(WIRE)
    for _ in range(3):
        assert not alarm.arrived(1, 1.0)
        assert not alarm.see(0)
    assert not ear.heard
    for _ in range(3):
        alarm.arrived(1, 1.0)
        alarm.see(0)
    assert ear.heard == 1


def test_a_surge_is_remembered_until_somebody_looks() -> None:
    alarm, ear = watched(WIRE)
    while not alarm.arrived(1, 1.0):
        assert not alarm.surging
    assert alarm.surging
    assert not ear.heard
    assert alarm.see(0)
    assert ear.heard == 1
    assert not alarm.surging


def test_slow_arrivals_do_not_set_it_off() -> None:
    alarm, ear = watched(WIRE)
    for second in range(100):
        alarm.arrived(1, float(second))
        alarm.see(0)
    assert not ear.heard


def test_without_a_wire_it_is_silent() -> None:
    alarm, ear = watched(None)
    alarm.see(1_000_000)
    alarm.arrived(1_000_000, 1.0)
    alarm.see(0)
    assert not ear.heard


def test_another_watch_takes_the_place_of_the_one_before() -> None:
    alarm, ear = watched(WIRE)
    other = Ear()
    alarm.watch(WIRE, other)
    alarm.see(5)
    assert (ear.heard, other.heard) == (0, 1)
