"""Rehearsing GPU control without a GPU: a simulated engine on the stand-in NVML library.

The clock that the governor sets travels through the keeper and NVML to the stand-in's card; batches take
the time that a profile gives at the clock which NVML then reports, and are booked as work on that card, so
that it draws power and counts energy. Nothing of this may happen on a GPU that exists: the stand-in is told
apart by a function that no real NVML has.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

from optimizer.devices.gpu import Gpu
from optimizer.devices.nvml.failures import name_of
from optimizer.telemetry import DeviceReading
from optimizer.twin.gpu_profile import GpuProfile
from server.config import Settings
from server.devices.nvidia import open_nvidia
from server.devices.served import ServedDevice
from server.errors import ConfigError

LIBRARY = "libnvidia-ml.so.1"
# An idle card shows its idle clock: a batch this short wakes it before its clock is read.
WAKE_S = 1e-4
_SM_CLOCK = 1


class StandinCard:
    """A card of the stand-in library as a load uses it. Made by `open_standin_card`."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def run(self, seconds: float, utilisation: float) -> None:
        """Book work from now on: it draws power and keeps the card from falling idle."""
        self._library.standinRunBatch(self._handle, ctypes.c_double(seconds), ctypes.c_double(utilisation))

    def sm_clock_mhz(self) -> int | None:
        """Return the clock in force by nvmlDeviceGetClockInfo; None when that fails."""
        clock_mhz = ctypes.c_uint()
        code = self._library.nvmlDeviceGetClockInfo(self._handle, _SM_CLOCK, ctypes.byref(clock_mhz))
        return None if code else clock_mhz.value


def open_standin_card(uuid: str) -> StandinCard:
    """Find a card in the NVML library that is in use, if that library is the stand-in.

    Raises:
        ConfigError: it is another library; a simulated engine must not govern a GPU that exists.
    """
    library = ctypes.CDLL(LIBRARY)  # the one that is loaded already
    if not hasattr(library, "standinRunBatch"):
        raise ConfigError(
            "--engine simulated --device rehearses on the stand-in NVML library only, and this is another: "
            "a simulated engine must not govern a real GPU. Leave --device out, or make a stand-in with "
            "`python -m bench.standin`"
        )
    handle = ctypes.c_void_p()
    code = library.standinFind(uuid.encode(), ctypes.byref(handle))
    if code:
        raise ConfigError(f"the stand-in NVML library has no card {uuid} ({name_of(code)})")
    return StandinCard(library, handle)


class RehearsalGpu:
    """Implements `Gpu` on a card of the stand-in, and executes batches there.

    Args:
        gpu: the card through NVML; governed as if it were real.
        card: the same card, as a load uses it.
        profile: gives the times, and how hard a batch works the card.
    """

    def __init__(self, gpu: Gpu, card: StandinCard, profile: GpuProfile) -> None:
        self._gpu = gpu
        self._card = card
        self._profile = profile
        self._clock_mhz = profile.boost_clock_mhz

    @property
    def uuid(self) -> str:
        """The card's UUID."""
        return self._gpu.uuid

    @property
    def simulated(self) -> bool:
        """Whether the readings are modelled rather than measured: always."""
        return True

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """Legal SM clocks of the card, ascending; empty when the clock cannot be set from here."""
        return self._gpu.sm_clocks_mhz

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        """Ask for a clock as of any GPU. Raises `DeviceError` when refused."""
        self._gpu.set_sm_clock_mhz(clock_mhz)

    def read(self) -> DeviceReading:
        """Return what NVML reports, its energy called simulated."""
        return self._gpu.read()

    def execute(self, model: str, batch: int) -> float:
        """Start a batch at the clock in force: book it on the card and return the seconds it takes.

        Raises KeyError for a model that the profile lacks.
        """
        physics = self._profile.model(model)
        work = self._utilisation(physics.busy_power_w(batch, self._profile.boost_clock_mhz))
        self._card.run(WAKE_S, work)
        self._clock_mhz = self._card.sm_clock_mhz() or self._clock_mhz
        seconds = physics.batch_s(batch, self._clock_mhz)
        self._card.run(max(0.0, seconds - WAKE_S), work)
        return seconds

    def _utilisation(self, busy_w: float) -> float:
        """How much of what the card may draw above idle such a batch draws, 0 to 1."""
        idle_w = self._profile.idle_power_w
        return min(1.0, max(0.0, (busy_w - idle_w) / (self._profile.power_limit_w - idle_w)))


def rehearse(settings: Settings, profile: GpuProfile) -> tuple[ServedDevice, RehearsalGpu]:
    """Have a card of the stand-in stand for the profile's GPU. Raises `ConfigError` for a real GPU."""
    served = open_nvidia(settings, simulated=True)
    try:
        card = open_standin_card(served.gpu.uuid)
    except ConfigError:
        served.close()
        raise
    gpu = RehearsalGpu(served.gpu, card, profile)
    return replace(served, gpu=gpu), gpu
