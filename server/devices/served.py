"""The device that was chosen, with what the daemon must know of it besides what every device tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from optimizer.devices.gpu import Gpu
from optimizer.governor import Governor

Failures = Mapping[tuple[str, str], int]


class ControlState(StrEnum):
    """Whether the daemon sets the GPU's clock, and why not."""

    OFF = "off"  # nobody asked for it: --control was not given
    ON = "on"
    REFUSED = "refused"  # for now, as when the keeper is away: it is tried again
    UNAVAILABLE = "unavailable"  # no keeper has lent it so far, no clock is legal, or no model is governed
    LOST = "lost"  # the GPU is gone or needs a reset


@dataclass(frozen=True, slots=True)
class ServedDevice:
    """What runs the networks.

    Args:
        gpu: as the governor sees it.
        is_gpu: whether it is a GPU, if only a simulated one; else the CPU.
        control: whether its clock was asked to be set.
        failures: how often each function of NVML failed with each code.
        lost: whether the device is gone for good.
        trouble: why what was asked for is not held at the moment; empty: it is, as far as one knows.
        close: gives back what was set, and lets go. Never raises; may be called more than once.
    """

    gpu: Gpu
    is_gpu: bool = True
    control: bool = False
    failures: Callable[[], Failures] = Counter
    lost: Callable[[], bool] = bool
    trouble: Callable[[], str] = str
    close: Callable[[], None] = lambda: None


def control_state(device: ServedDevice, governor: Governor | None) -> ControlState:
    """Say how it stands with the GPU's clock."""
    if not device.control:
        return ControlState.OFF
    if device.lost():
        return ControlState.LOST
    if governor is None or not governor.grid.sm_clocks_mhz:
        return ControlState.UNAVAILABLE
    return ControlState.REFUSED if governor.clock_refused or device.trouble() else ControlState.ON
