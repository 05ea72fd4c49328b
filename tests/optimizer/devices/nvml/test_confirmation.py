from __future__ import annotations

import pytest

from optimizer.devices.nvml.actuator import GpuSetting
from optimizer.devices.nvml.confirmation import Confirmation, InForce, why_not_in_force
from optimizer.telemetry import EventReason

STEPS = tuple(range(210, 1411, 15))
V100 = tuple(135 + 15 * step // 2 for step in range(167))
NONE = EventReason.NONE


@pytest.mark.parametrize(
    ("legal", "asked", "seen", "reasons"),
    [
        (STEPS, 1005, 1005, NONE),
        (STEPS, 1005, 1020, NONE),
        (STEPS, 1005, 990, NONE),
        (STEPS, 210, 225, NONE),
        (STEPS, 1410, 1395, NONE),
        (V100, 1005, 1012, NONE),
        (STEPS, 1410, 1300, EventReason.SW_POWER_CAP),
        (STEPS, 1410, 705, EventReason.HW_THERMAL_SLOWDOWN),
        (STEPS, 1410, 705, EventReason.HW_POWER_BRAKE),
        (STEPS, 1005, 210, EventReason.GPU_IDLE),
        (STEPS, 1005, 210, EventReason.GPU_IDLE | EventReason.APPLICATIONS_CLOCKS_SETTING),
        (STEPS, 1005, 210, None),  # a GPU that gives no reasons
        (STEPS, 1005, None, NONE),  # and one that does not tell its clock
        (STEPS, None, 1410, NONE),  # nothing was asked for
        ((1005,), 1005, 1005, NONE),
    ],
)
def test_taken_or_explained(
    legal: tuple[int, ...], asked: int | None, seen: int | None, reasons: EventReason | None
) -> None:
    assert why_not_in_force(GpuSetting(asked), InForce(seen, reasons=reasons), legal) == ""


@pytest.mark.parametrize(
    ("legal", "asked", "seen", "reasons"),
    [
        (STEPS, 1005, 989, NONE),
        (STEPS, 1005, 1021, NONE),
        (V100, 1005, 1020, NONE),
        (STEPS, 1005, 210, NONE),
        (STEPS, 1410, 1005, EventReason.APPLICATIONS_CLOCKS_SETTING),  # somebody else's setting limits it
        (STEPS, 705, 1410, EventReason.SW_POWER_CAP),  # nothing makes a GPU faster than it is told to be
        (STEPS, 705, 1410, EventReason.GPU_IDLE),
        (STEPS, 705, 1410, None),
        ((1005,), 1005, 1006, NONE),
    ],
)
def test_not_taken(legal: tuple[int, ...], asked: int, seen: int, reasons: EventReason | None) -> None:
    why = why_not_in_force(GpuSetting(asked), InForce(seen, reasons=reasons), legal)
    assert why == (f"SM clock of {asked} MHz asked for, {seen} MHz in force, and no event reason explains it")


@pytest.mark.parametrize(
    ("setting", "seen", "why"),
    [
        (GpuSetting(memory_clock_mhz=1593), InForce(memory_clock_mhz=1590, reasons=NONE), ""),
        (GpuSetting(memory_clock_mhz=2619), InForce(memory_clock_mhz=405, reasons=EventReason.GPU_IDLE), ""),
        (
            GpuSetting(memory_clock_mhz=1593),
            InForce(memory_clock_mhz=2619, reasons=NONE),
            "memory clock of 1593 MHz asked for, 2619 MHz in force, and no event reason explains it",
        ),
        (GpuSetting(power_limit_w=200.0), InForce(power_limit_w=200.4), ""),
        (GpuSetting(power_limit_w=200.0), InForce(), ""),
        (
            GpuSetting(power_limit_w=200.0),
            InForce(power_limit_w=250.0),
            "power limit of 200 W asked for, 250 W in force",
        ),
    ],
)
def test_the_other_axes(setting: GpuSetting, seen: InForce, why: str) -> None:
    assert why_not_in_force(setting, seen, ()) == why


class Sight:
    """What the GPU shows at each look; the time goes on by a second with each check."""

    def __init__(self, second_look: InForce) -> None:
        self.second_look = second_look
        self.now_s = 0.0

    def check(self, confirmation: Confirmation, seen: InForce) -> str:
        self.now_s += 1.0
        confirmation.check(seen)
        return confirmation.unconfirmed


def expecting(sight: Sight, clock_mhz: int) -> Confirmation:
    confirmation = Confirmation("GPU-1", lambda: sight.second_look, lambda: sight.now_s)
    confirmation.expect(GpuSetting(clock_mhz), STEPS)
    return confirmation


@pytest.mark.parametrize("first", [True, False])
def test_a_look_without_reasons_proves_nothing(first: bool) -> None:
    known, unknown = InForce(600, reasons=NONE), InForce(600)
    # Without reasons a slow clock raises no suspicion; a fast one does, and may be slow at the second look.
    sight = Sight(known if first else unknown)
    seen = InForce(1410) if first else known
    assert sight.check(expecting(sight, 1005), seen) == ""


def test_the_reasons_of_both_looks_count() -> None:
    sight = Sight(InForce(600, reasons=NONE))
    confirmation = expecting(sight, 1005)
    sight.now_s = 1.0
    last = confirmation.check(InForce(1410, reasons=EventReason.SW_POWER_CAP))
    assert confirmation.unconfirmed == ""
    assert last == InForce(600, reasons=EventReason.SW_POWER_CAP)


def test_a_reading_that_proves_nothing_does_not_have_it_said_again(caplog: pytest.LogCaptureFixture) -> None:
    slow, idle = InForce(600, reasons=NONE), InForce(210, reasons=EventReason.GPU_IDLE)
    sight = Sight(slow)
    confirmation = expecting(sight, 1005)
    for seen in (slow, idle, slow):
        assert bool(sight.check(confirmation, seen)) == (seen is slow)
    assert len(caplog.records) == 1
    assert sight.check(confirmation, InForce(1005, reasons=NONE)) == ""
    assert sight.check(confirmation, slow)
    assert len(caplog.records) == 2
