"""Joules of a span of time, from one tick of the device's counter to another."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import DeviceError, Gpu
from optimizer.devices.nvml.discovery import select_gpu
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Card, Nvml
from optimizer.telemetry import DeviceReading, EventReason

_TICK_WITHIN_S = 0.25
"""The slowest counters are refreshed every 100 ms."""

_LOOK_EVERY_S = 0.002
_QUIET = EventReason.NONE | EventReason.GPU_IDLE


@dataclass(frozen=True, slots=True)
class Span:
    """Energy between two ticks. `joules` is None when nothing measured it, and `source` says so."""

    joules: float | None
    seconds: float
    source: str
    reading: DeviceReading

    @property
    def power_w(self) -> float | None:
        """Mean power."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds

    @property
    def throttled(self) -> str:
        """Why a GPU was below its clock at the end; empty: it was not."""
        reasons = self.reading.event_reasons & ~_QUIET
        return ", ".join(r.name.lower().replace("_", " ") for r in EventReason if r.name and r in reasons)


class Meter:
    """Measures a device's energy while somebody else is at work. One thread uses it.

    Args:
        device: what is read.
        clock: the time in seconds.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        device: Gpu,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device = device
        self._clock = clock
        self._sleep = sleep

    def works(self) -> bool:
        """Whether there is energy to be read."""
        self._device.read()
        return self._device.read().energy.joules is not None

    def span(self, seconds: float) -> Span:
        """Return the energy of at least so many seconds; without a counter just wait for them.

        The counter is refreshed now and then, so the span reaches from the first tick that is seen to the
        first one after `seconds`. A counter that does not tick within 0.25 s is taken as it is.
        """
        self._device.read()
        _, measured = self._tick()
        began_s = self._clock()
        if not measured:
            self._sleep(seconds)
            return Span(None, self._clock() - began_s, "not-measured", self._device.read())
        self._sleep(seconds)
        joules, measured = self._tick()
        took_s = self._clock() - began_s
        reading = self._device.read()
        if not measured:
            return Span(None, took_s, "not-measured", reading)
        return Span(joules, took_s, str(reading.energy.source), reading)

    def _tick(self) -> tuple[float, bool]:
        """Wait for the counter to move; return the joules since the last look and whether it was measured.

        What was counted before the wait belongs to the sum: the tick that ends it comes with all of it.
        """
        until_s, joules = self._clock() + _TICK_WITHIN_S, 0.0
        first = True
        while True:
            found = self._device.read().energy.joules
            if found is None:
                return 0.0, False
            joules += found
            if (found > 0.0 and not first) or self._clock() >= until_s:
                return joules, True
            first = False
            self._sleep(_LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What the results belong to."""

    uuid: str
    name: str
    driver: str


class Meters:
    """The machine's energy counters. `open` first, `close` last; both never fail.

    Args:
        device_index: which GPU, as CUDA counts with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    def __init__(self, device_index: int) -> None:
        self._index = device_index
        self._nvml = Nvml()
        self._card: Card | None = None
        self._gpu_device: NvmlGpu | None = None
        self._rapl = RaplCpu()
        self.cpu: Meter | None = None
        self.gpu: Meter | None = None
        self.gpu_identity: GpuIdentity | None = None
        self.simulated = False
        self.notes: list[str] = []

    def open(self) -> None:
        """Find the counters; what is missing is noted."""
        cpu = Meter(self._rapl)
        self.cpu = cpu if cpu.works() else None
        if self.cpu is None:
            self.notes.append(f"energy of the CPU is not measured: {self._rapl.why_not_measured}")
        try:
            self._open_gpu()
        except DeviceError as error:
            self.notes.append(f"energy of a GPU is not measured: {error}")

    def of(self, *, on_gpu: bool) -> Meter | None:
        """Return the meter of the processor that an engine runs on; None: its energy is not measured."""
        return self.gpu if on_gpu else self.cpu

    def gpu_memory_mib(self) -> float | None:
        """Return the GPU's memory in use, by anybody; None: not known."""
        try:
            return None if self._card is None else self._card.memory_used_bytes() / 2**20
        except DeviceError:
            return None

    def close(self) -> None:
        """Let go of the GPU."""
        if self._gpu_device is not None:
            self._gpu_device.close()
        self._nvml.close()

    def _open_gpu(self) -> None:
        self._nvml.open()
        card = select_gpu(self._nvml, str(self._index), os.environ.get("CUDA_VISIBLE_DEVICES"))
        self.gpu_identity = GpuIdentity(card.uuid, card.name(), self._nvml.driver_version())
        self.simulated = self._nvml.simulated
        self._card = card
        self._gpu_device = NvmlGpu(card, simulated=self.simulated)
        meter = Meter(self._gpu_device)
        if meter.works():
            self.gpu = meter
        else:
            self.notes.append(f"energy of {card.uuid} is not measured: NVML gives neither energy nor power")


def idle_w(meter: Meter, seconds: float, parts: int = 5) -> float | None:
    """Return the median power over the parts of some seconds in which nobody works."""
    found = [meter.span(seconds / parts).power_w for _ in range(parts)]
    return statistics.median(power for power in found if power is not None) if None not in found else None
