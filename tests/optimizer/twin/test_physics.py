from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.twin.physics import Chip, ParametricPhysics

CHIP = Chip(
    boost_clock_mhz=1000,
    knee_clock_mhz=600,
    floor_voltage=0.8,
    constant_w=30,
    leakage_w=20,
    clock_tree_w=40,
)
NET = ParametricPhysics(
    chip=CHIP,
    launch_ms=0.1,
    memory_ms=0.2,
    compute_ms=0.5,
    memory_ms_per_image=0.1,
    compute_ms_per_image=0.2,
    activity_w=100,
    activity_exponent=1.2,
    memory_activity_share=0.3,
)


def test_time_is_launch_memory_and_what_follows_the_clock() -> None:
    assert NET.batch_s(1, 1000) == pytest.approx(1.1e-3)
    assert NET.batch_s(10, 1000) == pytest.approx(3.8e-3)
    assert NET.batch_s(10, 500) == pytest.approx(6.3e-3), "launch and memory do not wait for the clock"


@given(st.integers(1, 512), st.floats(100, 1000), st.floats(1, 8))
def test_the_roofline_lies_between_the_longer_part_and_both(
    batch: int, clock_mhz: float, sharpness: float
) -> None:
    sharp = dataclasses.replace(NET, roofline_sharpness=sharpness)
    once_ms = 0.3 + 0.5 * 1000 / clock_mhz
    compute_ms, memory_ms = 0.2 * batch * 1000 / clock_mhz, 0.1 * batch
    longest_ms, both_ms = once_ms + max(compute_ms, memory_ms), once_ms + compute_ms + memory_ms
    assert longest_ms * (1 - 1e-9) <= sharp.batch_s(batch, clock_mhz) * 1e3 <= both_ms * (1 + 1e-9)


def test_an_endlessly_sharp_roofline_is_the_longer_part() -> None:
    sharp = dataclasses.replace(NET, roofline_sharpness=200.0, memory_ms_per_image=0.3)
    assert sharp.batch_s(100, 1000) == pytest.approx((0.8 + 30) / 1e3, rel=1e-6), "memory bound at boost"
    assert sharp.batch_s(100, 400) == pytest.approx((1.55 + 50) / 1e3, rel=1e-6), "compute bound below"


def test_the_voltage_is_flat_and_then_rises() -> None:
    assert CHIP.voltage(200) == CHIP.voltage(600) == 0.8
    assert CHIP.voltage(800) == pytest.approx(0.9)
    assert CHIP.voltage(1000) == pytest.approx(1.0)


def test_power_at_boost_is_standing_power_and_activity() -> None:
    assert CHIP.standing_power_w(1000) == pytest.approx(90.0)
    assert NET.busy_power_w(10_000_000, 1000) == pytest.approx(190.0, rel=1e-4), (
        "endless batches: full activity"
    )
    used = 0.3 * 10 / 3.8
    assert NET.busy_power_w(10, 1000) == pytest.approx(90.0 + 100 * used**1.2)


def test_below_the_knee_only_the_pace_of_the_work_saves_power() -> None:
    slow_w, slower_w = (NET.busy_power_w(64, clock) for clock in (600, 300))
    standing_w = CHIP.standing_power_w(600) - CHIP.standing_power_w(300)
    activity_w = slow_w - CHIP.standing_power_w(600)
    pace = NET.batch_s(64, 600) / NET.batch_s(64, 300)
    assert standing_w == pytest.approx(40 * 0.3 * 0.8**2)
    assert slower_w - CHIP.standing_power_w(300) == pytest.approx(activity_w * pace)
