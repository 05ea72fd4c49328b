"""The seam to whoever may set a GPU: what can be asked for, within which bounds, and how it is given back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GpuSetting:
    """What is asked of a GPU; None leaves an axis to the device."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True, slots=True)
class ClockBounds:
    """What is permitted on one GPU, ends included. An axis that is None or empty may not be set."""

    sm_low_mhz: int
    sm_high_mhz: int
    power_low_w: float | None = None
    power_high_w: float | None = None
    memory_clocks_mhz: tuple[int, ...] = ()


class Actuator(Protocol):
    """Sets one GPU and is bound to give it back. Implementations do no I/O in their constructor.

    One thread at a time calls it; every call ends within seconds, answered or not.
    """

    @property
    def trouble(self) -> str:
        """Why nothing can be set, or what was set is not held, at the moment; empty while all is well."""

    @property
    def disturbances(self) -> int:
        """How often so far the setting was lost, or was taken up again, without anybody asking for it."""

    def bounds(self) -> ClockBounds | None:
        """Return what may be set here; None while nobody can say, as when the keeper does not answer.

        Raises `DeviceLost` when the device is lost.
        """

    def set(self, setting: GpuSetting) -> None:
        """Ask for a setting, whole: an axis left None goes back to the device.

        Raises `DeviceError`; `DeviceLost` when the device is lost.

        That it returns means that the request was recorded, not that the clock was reached.
        """

    def release(self) -> None:
        """Give everything back to the device; raises `DeviceError` when that could not be asked for."""

    def close(self) -> None:
        """Give back and let go; never raises."""
