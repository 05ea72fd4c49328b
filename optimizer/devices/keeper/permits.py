"""What the keeper may set on a GPU: what its configuration permits, within what the card offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting


@dataclass(frozen=True, slots=True)
class Permit:
    """What the configuration permits on one GPU.

    Args:
        sm_clock_mhz: lowest and highest SM clock; None: whatever the card offers.
        power_limit_w: lowest and highest power limit; None: the limit may not be set.
        memory_clocks_mhz: memory clocks that may be set; empty: none.
    """

    sm_clock_mhz: tuple[int, int] | None = None
    power_limit_w: tuple[float, float] | None = None
    memory_clocks_mhz: tuple[int, ...] = ()


def bounds_of(permit: Permit, sm_clocks_mhz: tuple[int, ...]) -> ClockBounds:
    """Return what may be set on a card that offers these SM clocks, ascending.

    Raises DeviceError when none of the card's clocks is permitted.
    """
    low, high = permit.sm_clock_mhz or (0, max(sm_clocks_mhz, default=0))
    permitted = [clock_mhz for clock_mhz in sm_clocks_mhz if low <= clock_mhz <= high]
    if not permitted:
        offered = f"{sm_clocks_mhz[0]} to {sm_clocks_mhz[-1]} MHz" if sm_clocks_mhz else "no SM clocks"
        raise DeviceError(
            f"the keeper permits SM clocks of {low} to {high} MHz, and the card offers {offered}: correct "
            "sm_clock_mhz in the keeper's configuration"
        )
    low_w, high_w = permit.power_limit_w or (None, None)
    return ClockBounds(permitted[0], permitted[-1], low_w, high_w, permit.memory_clocks_mhz)


def trespass(bounds: ClockBounds | None, setting: GpuSetting) -> str | None:
    """Say what a setting asks for that may not be set; None when all of it may. No bounds permit nothing."""
    if bounds is None:
        return "its bounds are not known, so nothing may be set"
    return next(_trespasses(bounds, setting), None)


def _trespasses(bounds: ClockBounds, setting: GpuSetting) -> Iterator[str]:
    low, high = bounds.sm_low_mhz, bounds.sm_high_mhz
    if setting.sm_clock_mhz is not None and not low <= setting.sm_clock_mhz <= high:
        yield f"SM clock {setting.sm_clock_mhz} MHz; permitted are {low} to {high} MHz"
    if setting.memory_clock_mhz is not None and setting.memory_clock_mhz not in bounds.memory_clocks_mhz:
        permitted = ", ".join(f"{clock} MHz" for clock in bounds.memory_clocks_mhz) or "none"
        yield f"memory clock {setting.memory_clock_mhz} MHz; permitted: {permitted}"
    if setting.power_limit_w is not None:
        yield from _power_trespasses(bounds, setting.power_limit_w)


def _power_trespasses(bounds: ClockBounds, limit_w: float) -> Iterator[str]:
    if bounds.power_low_w is None or bounds.power_high_w is None:
        yield f"power limit {limit_w:g} W; no power limit may be set"
    elif not bounds.power_low_w <= limit_w <= bounds.power_high_w:
        yield (
            f"power limit {limit_w:g} W; permitted are {bounds.power_low_w:g} to {bounds.power_high_w:g} W"
        )
