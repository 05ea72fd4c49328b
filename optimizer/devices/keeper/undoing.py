"""Putting one axis of a GPU back to how its marker says that it was, and checking what can be checked."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import Axis, Marker
from optimizer.devices.nvml.failures import (
    DEPRECATED,
    FUNCTION_NOT_FOUND,
    NOT_SUPPORTED,
    NvmlFailure,
)
from optimizer.devices.nvml.library import Card

LACKING = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)
# Newer drivers give application clocks up: they cannot be given back then, and were not set.
_NOT_OFFERED = (*LACKING, DEPRECATED)


def undo(card: Card, axis: Axis, marker: Marker) -> None:
    """Put one axis back; raises DeviceError when it is not as it was then.

    What the card does not offer cannot have been changed, so that it cannot be undone is no failure; unless
    the driver once confirmed the change.
    """
    try:
        _UNDO[axis](card, marker)
    except NvmlFailure as failure:
        if failure.code not in _NOT_OFFERED or axis in marker.confirmed:
            raise


def _undo_power(card: Card, marker: Marker) -> None:
    limit_w = card.default_power_limit_w() if marker.power_limit_w is None else marker.power_limit_w
    card.set_power_limit_w(limit_w)
    found_w = card.power_limit_w()
    if round(found_w * 1000) != round(limit_w * 1000):
        raise DeviceError(f"{card.uuid}: the power limit is {found_w:g} W and was to be {limit_w:g} W again")


def _undo_application_clocks(card: Card, marker: Marker) -> None:
    default = card.default_application_clocks_mhz()
    wanted = marker.application_clocks_mhz or default
    if wanted == default:
        card.reset_application_clocks()
    else:
        card.set_application_clocks(wanted[1], wanted[0])
    found = card.application_clocks_mhz()
    if found != wanted:
        raise DeviceError(
            f"{card.uuid}: the application clocks are {found} and were to be {wanted} MHz again"
        )


_UNDO: dict[Axis, Callable[[Card, Marker], None]] = {
    Axis.POWER_LIMIT: _undo_power,
    Axis.SM_LOCK: lambda card, _marker: card.unlock_sm_clock(),
    Axis.MEMORY_LOCK: lambda card, _marker: card.unlock_memory_clock(),
    Axis.APPLICATION_CLOCKS: _undo_application_clocks,
}
