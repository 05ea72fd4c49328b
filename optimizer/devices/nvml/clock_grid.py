"""Which SM clocks are legal on a GPU: those of the memory clock that it works at, within the bounds."""

from __future__ import annotations

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.actuator import ClockBounds
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Card


def working_memory_clock_mhz(card: Card, wanted_mhz: int | None = None) -> int:
    """Return the memory clock that work runs at, whose SM clocks are the legal ones.

    The memory clock that NVML reads now may be that of an idle card. So: the one that is wanted, else that of
    the application clocks, else the highest. Raises DeviceError when the card names none.
    """
    if wanted_mhz is not None:
        return wanted_mhz
    legal_mhz = card.supported_memory_clocks_mhz()
    if not legal_mhz:
        raise DeviceError(f"{card.uuid}: NVML names no memory clock, so no SM clock is legal either")
    application_mhz = _application_memory_clock_mhz(card)
    return application_mhz if application_mhz in legal_mhz else legal_mhz[-1]


def legal_sm_clocks_mhz(card: Card, bounds: ClockBounds, memory_mhz: int | None = None) -> tuple[int, ...]:
    """Return the SM clocks that may be set within bounds, ascending.

    Raises:
        DeviceError: no clock lies within the bounds, or NVML failed.
    """
    clocks_mhz = card.supported_sm_clocks_mhz(working_memory_clock_mhz(card, memory_mhz))
    legal_mhz = tuple(clock for clock in clocks_mhz if bounds.sm_low_mhz <= clock <= bounds.sm_high_mhz)
    if not legal_mhz:
        permitted = f"{bounds.sm_low_mhz} to {bounds.sm_high_mhz} MHz are permitted"
        raise DeviceError(
            f"{card.uuid}: {permitted}, but its SM clocks are {span(clocks_mhz)}: permit others"
        )
    return legal_mhz


def span(clocks_mhz: tuple[int, ...]) -> str:
    """Say how many clocks there are and from where to where."""
    if not clocks_mhz:
        return "none"
    return f"{len(clocks_mhz)} from {clocks_mhz[0]} to {clocks_mhz[-1]} MHz"


def _application_memory_clock_mhz(card: Card) -> int | None:
    try:
        return card.application_clocks_mhz()[1]
    except NvmlFailure as failure:
        if failure.gone:
            raise
        return None
