"""What a training used: energy by the devices' own readings, and how busy they were."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from optimizer.devices.gpu import Gpu
from optimizer.telemetry import NOT_MEASURED, Energy, EnergySource

_SAMPLE_EVERY_S = 0.2


class UseMeter(Protocol):
    """How busy something is, between `start` and `stop`."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> float | None:
        """End; return the mean share of the time that it was busy, 0 to 1; None when it cannot be told."""


@dataclass(slots=True)
class EnergyMeter:
    """Adds up the energy of several devices. `lap` now and then: counters wrap.

    Args:
        gpus: read by this thread.
    """

    gpus: Sequence[Gpu]
    _joules: float = 0.0
    _sources: set[EnergySource] = field(default_factory=set)

    def start(self) -> None:
        """Begin at nought."""
        self._joules, self._sources = 0.0, set()
        for gpu in self.gpus:
            gpu.read()

    def lap(self) -> None:
        """Add what was used since the last call."""
        for gpu in self.gpus:
            energy = gpu.read().energy
            self._joules += energy.joules or 0.0
            self._sources.add(energy.source)

    def stop(self) -> Energy:
        """Return what was used since `start`; not measured when any device's was not, at any time."""
        self.lap()
        if not self._sources or EnergySource.NOT_MEASURED in self._sources:
            return NOT_MEASURED
        # Of unlike sources the less exact one speaks for the sum.
        source = self._sources.pop() if len(self._sources) == 1 else EnergySource.NVML_POWER
        return Energy(self._joules, source)


@dataclass(slots=True)
class CpuUse:
    """The share of the processor's cores that this process keeps busy."""

    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    _began: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Begin."""
        self._began = time.process_time(), time.monotonic()

    def stop(self) -> float | None:
        """Return the share; None for no time at all."""
        busy_s, elapsed_s = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        return min(1.0, busy_s / elapsed_s / self.cores) if elapsed_s > 0.0 else None


class SampledUse:
    """Asks devices five times a second how busy they are, in a thread of its own.

    Args:
        ask: one a device; returns its use, 0 to 1, and raises any `error` when it cannot.
        error: ends the sampling; what was seen until then counts.
    """

    def __init__(self, ask: Sequence[Callable[[], float]], error: type[Exception]) -> None:
        self._ask = ask
        self._error = error
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._seen, self._over = [], threading.Event()
        self._thread = threading.Thread(target=self._sample, name="device-use", daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """Return the mean over samples and devices; None when there was no sample."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        return sum(self._seen) / len(self._seen) if self._seen else None

    def _sample(self) -> None:
        while self._ask and not self._over.wait(_SAMPLE_EVERY_S):
            try:
                self._seen.append(sum(ask() for ask in self._ask) / len(self._ask))
            except self._error:
                return
