from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.energy_meter import EnergyMeter

IDLE_W = 20.0


def by_hand(batches: list[tuple[float, float, float]], until_s: float) -> float:
    """Sum the batches one by one, each starting when it was booked or when the one before ended."""
    total_j, free_s = IDLE_W * until_s, -math.inf
    for booked_s, seconds, power_w in batches:
        start_s = max(booked_s, free_s)
        free_s = start_s + seconds
        total_j += (power_w - IDLE_W) * max(0.0, min(free_s, until_s) - start_s)
    return total_j


@given(
    st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(1e-4, 0.3), st.floats(0.0, 300.0)), max_size=40),
    st.floats(-1.0, 20.0),
)
def test_it_adds_up_at_any_time(steps: list[tuple[float, float, float]], until_s: float) -> None:
    meter, batches, now_s = EnergyMeter(IDLE_W), [], 0.0
    for wait_s, seconds, power_w in steps:
        now_s += wait_s
        meter.book(now_s, seconds, power_w)
        batches.append((now_s, seconds, power_w))
    assert meter.joules(until_s) == pytest.approx(by_hand(batches, until_s), abs=1e-6)


def test_what_it_forgets_stays_in_the_sum() -> None:
    meter, batches = EnergyMeter(IDLE_W, memory_s=0.5), []
    for index in range(20_000):
        batches.append((index * 1e-3, 0.5e-3, 100.0 + index % 7))
        meter.book(*batches[-1])
    for back_s in (0.0, 0.0002, 0.1, 0.49):
        until_s = batches[-1][0] - back_s
        assert meter.joules(until_s) == pytest.approx(by_hand(batches, until_s))
    kept = len(meter._starts_s)
    assert kept < 2500, "twice what half a second holds, and some"


def test_it_knows_whether_something_runs() -> None:
    meter = EnergyMeter(IDLE_W)
    assert not meter.busy(0.0)
    meter.book(1.0, 0.5, 100.0)
    meter.book(1.0, 0.5, 100.0)
    assert meter.busy(1.75)
    assert not meter.busy(2.0)
