"""The seam to whatever executes batches and uses energy."""

from __future__ import annotations

from typing import Protocol

from optimizer.telemetry import DeviceReading


class Gpu(Protocol):
    """A device as the governor sees it. Real, simulated, or the CPU package standing in for one.

    Implementations do no I/O in their constructor and never raise from `read`: what cannot be read is None
    (energy: `NOT_MEASURED`).
    """

    @property
    def uuid(self) -> str:
        """Identity used as a label everywhere, e.g. `GPU-5f3c...`, `simulated-v100`, `cpu-package`."""

    @property
    def simulated(self) -> bool:
        """Whether the readings are modelled rather than measured."""

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """Legal SM clocks, ascending; empty when the clock cannot be set from here."""

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        """Ask for a clock; None gives the clock back to the device. Raises `DeviceError` when refused."""

    def read(self) -> DeviceReading:
        """Return readings for the interval since the previous call; the first call opens the interval."""


class DeviceError(Exception):
    """The device refused or failed; says what was asked, what is allowed and what to do."""


class DeviceLost(DeviceError):
    """Whoever sets the device found it lost, or in need of a reset: nothing can be set on it any more."""


class DeviceGone(DeviceError):
    """The device is gone for good and has said so in the log: nothing is gained by saying it again."""
