"""A rack of simulated cards whose time is the test's, and an actuator that sets them without a keeper."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvml_rack import Rack

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.library import Card


@dataclass
class RackTime:
    """Stops a rack's clock; calling it tells the time, `pass_by` lets some of it go."""

    rack: Rack
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        self.rack.stop_clock()

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float) -> None:
        self.rack.skip(seconds)
        self.now_s += seconds


ANYTHING = ClockBounds(0, 10_000, 0.0, 10_000.0, tuple(range(10_000)))


@dataclass
class DirectActuator:
    """Implements `Actuator` by NVML itself. `refuses` is what every request is refused with, if anything."""

    card: Card
    permitted: ClockBounds | None = field(default_factory=lambda: ANYTHING)
    refuses: str = ""
    asked: list[GpuSetting | None] = field(default_factory=list)  # None: release
    closed: bool = False
    trouble: str = "nobody answers"
    disturbances: int = 0

    def bounds(self) -> ClockBounds | None:
        return self.permitted

    def set(self, setting: GpuSetting) -> None:
        self._note(setting)
        if setting.sm_clock_mhz is None:
            self.card.unlock_sm_clock()
        else:
            self.card.lock_sm_clock(setting.sm_clock_mhz)
        if setting.memory_clock_mhz is not None:
            self.card.lock_memory_clock(setting.memory_clock_mhz)
        if setting.power_limit_w is not None:
            self.card.set_power_limit_w(setting.power_limit_w)

    def release(self) -> None:
        self._note(None)
        self.card.unlock_sm_clock()

    def close(self) -> None:
        self.closed = True

    def _note(self, setting: GpuSetting | None) -> None:
        self.asked.append(setting)
        if self.refuses:
            raise DeviceError(self.refuses)
