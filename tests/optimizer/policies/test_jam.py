"""Smaller batches are tried where large ones, held down by the power limit, keep a queue for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fluid_plant import GRID

from optimizer.policies.jam import Jam
from optimizer.telemetry import DeviceReading, Energy, EnergySource, EventReason, Traffic, Window

LIMITS = (1, 2, 4, 8, 16, 32, 64)
POINT = replace(GRID.default, batch_limit=64)
CAPPED = DeviceReading(Energy(300.0, EnergySource.SIMULATED), event_reasons=EventReason.SW_POWER_CAP)
STUCK = Window(0.0, 1.0, POINT, Traffic(arrived=100, completed=100, late=100, queued=500), CAPPED)
LIMITS_TRIED = [64, 32, 32, 16, 16, 64, 64, 32]


def tried(window: Window, times: int) -> list[int]:
    jam, limits = Jam(), []
    for _ in range(times):
        jam.observe(window)
        limits.append(jam.limit(64, LIMITS))
    return limits


def test_in_a_jam_smaller_batches_have_their_turns() -> None:
    assert tried(STUCK, len(LIMITS_TRIED)) == LIMITS_TRIED


@pytest.mark.parametrize(
    "window",
    [
        replace(STUCK, device=replace(CAPPED, event_reasons=EventReason.NONE)),
        replace(STUCK, traffic=replace(STUCK.traffic, late=10)),
        replace(STUCK, traffic=replace(STUCK.traffic, queued=0)),
    ],
    ids=["no power limit", "most in time", "no queue"],
)
def test_nothing_else_is_a_jam(window: Window) -> None:
    assert tried(window, 10) == [64] * 10


def test_a_jam_that_ends_is_forgotten() -> None:
    jam = Jam()
    for _ in range(3):
        jam.observe(STUCK)
    jam.observe(replace(STUCK, traffic=replace(STUCK.traffic, late=0)))
    assert jam.limit(64, LIMITS) == 64


def test_a_limit_is_always_legal() -> None:
    jam = Jam()
    for _ in range(2):
        jam.observe(STUCK)
    assert jam.limit(1, LIMITS) == 1
    assert jam.limit(40, (16, 64)) == 16
