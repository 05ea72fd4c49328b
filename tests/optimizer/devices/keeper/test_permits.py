from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.permits import Permit, bounds_of, trespass
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting

CLOCKS = tuple(range(210, 1411, 15))
BOUNDS = ClockBounds(510, 1200, 150.0, 250.0, (1215,))


def test_the_card_and_the_configuration_bound_the_clock_together() -> None:
    assert bounds_of(Permit(), CLOCKS) == ClockBounds(210, 1410)
    assert bounds_of(Permit(sm_clock_mhz=(500, 5000)), CLOCKS) == ClockBounds(510, 1410)
    assert bounds_of(Permit(sm_clock_mhz=(1, 1207)), CLOCKS) == ClockBounds(210, 1200)


@pytest.mark.parametrize(("permit", "clocks"), [(Permit((211, 220)), CLOCKS), (Permit(), ())])
def test_a_range_without_a_clock_of_the_card_is_an_error(permit: Permit, clocks: tuple[int, ...]) -> None:
    with pytest.raises(DeviceError, match="correct sm_clock_mhz"):
        bounds_of(permit, clocks)


def test_what_is_not_named_may_not_be_set() -> None:
    bare = bounds_of(Permit(), CLOCKS)
    assert trespass(bare, GpuSetting(power_limit_w=200.0)) == "power limit 200 W; no power limit may be set"
    assert trespass(bare, GpuSetting(memory_clock_mhz=1215)) == "memory clock 1215 MHz; permitted: none"
    assert trespass(None, GpuSetting()) is not None


@given(
    st.none() | st.integers(1, 3000),
    st.none() | st.sampled_from([1215, 810]),
    st.none() | st.floats(1.0, 500.0),
)
def test_exactly_what_is_within_bounds_may_be_set(
    sm_mhz: int | None, memory_mhz: int | None, watts: float | None
) -> None:
    setting = GpuSetting(sm_mhz, memory_mhz, watts)
    within = (
        (sm_mhz is None or 510 <= sm_mhz <= 1200)
        and (memory_mhz in (None, 1215))
        and (watts is None or 150.0 <= watts <= 250.0)
    )
    assert (trespass(BOUNDS, setting) is None) == within
