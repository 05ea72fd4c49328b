"""The axes that an operator fixed, memory clock and power limit: which may be set, and why others may not.

One that may not be set is left alone: it must not keep the SM clock from being governed.
"""

from __future__ import annotations

from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.failures import NvmlFailure, Remedy
from optimizer.devices.nvml.library import Card

_CONFIGURED = "in the keeper's configuration"


def settable_axes(card: Card, bounds: ClockBounds, wanted: GpuSetting) -> tuple[GpuSetting, tuple[str, ...]]:
    """Return those of the fixed axes that may be set, and what is to be said of the others.

    Raises:
        NvmlFailure: the GPU is gone, or may be able to tell later.
    """
    no_memory = _why_no_memory_clock(card, bounds, wanted.memory_clock_mhz)
    no_limit = _why_no_power_limit(card, bounds, wanted.power_limit_w)
    settable = GpuSetting(
        memory_clock_mhz=None if no_memory else wanted.memory_clock_mhz,
        power_limit_w=None if no_limit else wanted.power_limit_w,
    )
    return settable, tuple(f"{card.uuid}: {why}: it is left alone" for why in (no_memory, no_limit) if why)


def _why_no_memory_clock(card: Card, bounds: ClockBounds, clock_mhz: int | None) -> str:
    if clock_mhz is None:
        return ""
    asked = f"a memory clock of {clock_mhz} MHz"
    if clock_mhz not in bounds.memory_clocks_mhz:
        permitted = _listed(bounds.memory_clocks_mhz)
        return f"{asked} is not permitted (memory_clocks_mhz {_CONFIGURED}: {permitted})"
    offered_mhz = card.supported_memory_clocks_mhz()
    return "" if clock_mhz in offered_mhz else f"{asked} is not one of the card's: {_listed(offered_mhz)}"


def _why_no_power_limit(card: Card, bounds: ClockBounds, limit_w: float | None) -> str:
    if limit_w is None:
        return ""
    asked, low_w, high_w = f"a power limit of {limit_w:g} W", bounds.power_low_w, bounds.power_high_w
    if low_w is None or high_w is None:
        return f"{asked} is not permitted (power_limit_w {_CONFIGURED}: none)"
    if not low_w <= limit_w <= high_w:
        return f"{asked} is not permitted (power_limit_w {_CONFIGURED}: {low_w:g} to {high_w:g} W)"
    try:
        card.power_limit_w()
        low_w, high_w = card.power_limit_range_w()
    except NvmlFailure as failure:
        if failure.remedy is not Remedy.OBSERVE:
            raise
        return f"{asked} could not be set and taken back ({failure})"
    return "" if low_w <= limit_w <= high_w else f"{asked} is not the card's: {low_w:g} to {high_w:g} W"


def _listed(clocks_mhz: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, clocks_mhz))} MHz" if clocks_mhz else "none"
