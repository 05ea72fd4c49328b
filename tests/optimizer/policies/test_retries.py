"""How long is waited before a clock is tried again that a device did not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fluid_plant import CLOCKS, window

from optimizer.operating_point import OperatingPoint
from optimizer.policies.retries import Retries
from optimizer.telemetry import EventReason, Window

HOT = EventReason.SW_THERMAL_SLOWDOWN


def held_down(reasons: EventReason = HOT, not_taken: str = "") -> Window:
    """A window at half of the clock that was asked for."""
    seen = window(OperatingPoint(64, CLOCKS[-1]), reasons=reasons)
    return replace(seen, device=replace(seen.device, sm_clock_mhz=CLOCKS[-1] // 2, clock_not_taken=not_taken))


def free(reasons: EventReason = EventReason.NONE) -> Window:
    """A window at the clock that was asked for."""
    return window(OperatingPoint(64, CLOCKS[-1]), reasons=reasons)


def fail(retries: Retries, seen: Window | None = None) -> int:
    """Have a retry fail; return for how many windows is waited then, if nothing changes."""
    seen = seen or held_down()
    retries.observe(seen, tried=True, failed=True)
    waited = 0
    while retries.must_wait:
        retries.observe(seen, tried=False, failed=False)
        waited += 1
    return waited


def test_each_failure_doubles_the_wait_up_to_thirty_two_windows() -> None:
    retries = Retries()
    assert not retries.must_wait
    assert [fail(retries) for _ in range(7)] == [2, 4, 8, 16, 32, 32, 32]


@pytest.mark.parametrize(
    "back", [free(), free(HOT)], ids=["the reason is gone", "the clock is that asked for"]
)
def test_nothing_is_waited_for_once_the_device_takes_its_clock(back: Window) -> None:
    retries = Retries()
    for _ in range(5):
        fail(retries)
    retries.observe(held_down(), tried=True, failed=True)
    retries.observe(held_down(), tried=False, failed=False)
    assert retries.must_wait
    retries.observe(back, tried=False, failed=False)
    assert not retries.must_wait


def test_a_device_that_is_free_for_a_moment_only_is_waited_for_as_long_as_before() -> None:
    retries = Retries()
    assert [fail(retries) for _ in range(3)] == [2, 4, 8]
    retries.observe(free(), tried=True, failed=False)
    assert fail(retries) == 16


@pytest.mark.parametrize("seen", [held_down(), free()], ids=["held down", "free"])
def test_a_retry_that_lasts_ends_the_doubling(seen: Window) -> None:
    retries = Retries()
    for _ in range(4):
        fail(retries)
    for _ in range(5):
        retries.observe(seen, tried=True, failed=False)
    assert fail(retries) == 2


def test_windows_at_the_fast_point_are_no_retries() -> None:
    retries = Retries()
    assert [fail(retries) for _ in range(2)] == [2, 4]
    for _ in range(20):
        retries.observe(held_down(), tried=False, failed=True)
        assert not retries.must_wait
        retries.observe(held_down(), tried=False, failed=False)
    assert fail(retries) == 8


def test_what_is_too_slow_at_the_clock_asked_for_is_not_waited_for() -> None:
    retries = Retries()
    assert [fail(retries, free()) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("seen", "first"),
    [
        (held_down(EventReason.HW_POWER_BRAKE), 2),
        (held_down(EventReason.NONE, "somebody else holds it"), 2),
        (held_down(EventReason.SW_POWER_CAP), 0),
        (held_down(EventReason.GPU_IDLE), 0),
    ],
)
def test_a_clock_that_another_holds_is_waited_for_and_a_power_limit_that_is_learned_is_not(
    seen: Window, first: int
) -> None:
    assert fail(Retries(), seen) == first
