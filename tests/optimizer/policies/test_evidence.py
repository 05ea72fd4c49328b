"""When late answers are too many to be chance."""

from __future__ import annotations

from random import Random

import pytest
from fluid_plant import GRID, window

from optimizer.operating_point import OperatingPoint
from optimizer.policies.evidence import SloWatch, latest_arrivals, was_in_force
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes, Cut, DeviceReading, EventReason, Traffic, Window

TARGETS = Targets(slo_p99_ms=25.0)
BATCH, BATCHES = 16, 250


def troubles(late_share: float, windows: int, *, surged: bool = False) -> int:
    """Play windows whose batches are late as a whole, each by chance; return how many were found too late."""
    random, watch = Random(1), SloWatch()
    ran = {BATCH: BatchTimes(BATCHES, BATCHES * 0.003)}
    found = 0
    for _ in range(windows):
        late = BATCH * sum(random.random() < late_share for _ in range(BATCHES))
        seen = window(GRID.default, images=BATCH * BATCHES, late=late, batches=ran)
        found += watch.trouble(seen, TARGETS, surged=surged) is not None
    return found


def test_fewer_late_answers_than_may_be_are_hardly_ever_trouble_though_batches_are_late_as_a_whole() -> None:
    assert troubles(0.007, windows=400) <= 4


def test_more_late_answers_than_may_be_soon_are() -> None:
    assert troubles(0.03, windows=6) >= 1
    assert troubles(0.016, windows=100) >= 5


def test_late_answers_of_a_surge_are_not_put_down_to_chance() -> None:
    assert troubles(0.014, windows=100, surged=True) > 2 * troubles(0.014, windows=100)


@pytest.mark.parametrize(
    ("at_s", "before", "expected"),
    [
        (10.6, 60, (440, 0.4)),
        (10.6, 450, (500, 1.0)),
        (10.96, 60, (500, 1.0)),
        (10.9, 481, (500, 1.0)),
    ],
    ids=["since the alarm", "more before it", "too short since", "too few since"],
)
def test_what_came_since_an_alarm_tells_more_of_a_surge_than_the_mean(
    at_s: float, before: int, expected: tuple[int, float]
) -> None:
    point = OperatingPoint(8, 500)
    seen = Window(10.0, 11.0, point, Traffic(arrived=500), cut=Cut(point, {}, at_s, before))
    assert latest_arrivals(seen) == pytest.approx(expected)
    assert latest_arrivals(Window(10.0, 11.0, point, Traffic(arrived=500))) == (500, 1.0)


@pytest.mark.parametrize(
    ("measured_mhz", "reasons", "in_force"),
    [
        (1000, EventReason.NONE, True),
        (900, EventReason.NONE, False),
        (900, EventReason.SW_POWER_CAP, True),
        (900, EventReason.GPU_IDLE, False),
        (None, EventReason.NONE, False),
        (None, EventReason.SW_POWER_CAP, False),
    ],
)
def test_what_the_power_limit_allows_is_in_force(
    measured_mhz: int | None, reasons: EventReason, *, in_force: bool
) -> None:
    device = DeviceReading(sm_clock_mhz=measured_mhz, event_reasons=reasons)
    assert was_in_force(Window(0.0, 1.0, OperatingPoint(8, 1000), device=device)) is in_force
