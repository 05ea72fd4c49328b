"""What one interval measured: the traffic that the scheduler saw and the readings that the device gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import NamedTuple

from optimizer.operating_point import OperatingPoint


class EnergySource(StrEnum):
    """Where a joule or a watt comes from; no energy figure is shown without it."""

    NVML_ENERGY_COUNTER = "nvml-energy-counter"
    NVML_POWER = "nvml-power"
    RAPL = "rapl"
    ESTIMATED = "estimated"
    SIMULATED = "simulated"
    NOT_MEASURED = "not-measured"


class EventReason(IntFlag):
    """Why a GPU is not at its clock; the bits are NVML's clocks event reasons."""

    NONE = 0
    GPU_IDLE = 0x1
    APPLICATIONS_CLOCKS_SETTING = 0x2
    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SYNC_BOOST = 0x10
    SW_THERMAL_SLOWDOWN = 0x20
    HW_THERMAL_SLOWDOWN = 0x40
    HW_POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy over an interval with its source. `joules` is None exactly when nothing measured it."""

    joules: float | None
    source: EnergySource

    def __post_init__(self) -> None:
        if (self.joules is None) != (self.source is EnergySource.NOT_MEASURED):
            raise ValueError(f"joules {self.joules} contradicts its source {self.source}")


NOT_MEASURED = Energy(None, EnergySource.NOT_MEASURED)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """How often batches of one size ran in the interval, and how long the engine took for all of them."""

    count: int
    total_s: float

    def __add__(self, other: BatchTimes) -> BatchTimes:
        """Return both together."""
        return BatchTimes(self.count + other.count, self.total_s + other.total_s)


def that_ran(batches: Mapping[int, BatchTimes]) -> dict[int, BatchTimes]:
    """Return the sizes of which batches ran and took time, which tell how long one takes."""
    return {size: times for size, times in batches.items() if times.count > 0 and times.total_s > 0.0}


LATEST_BATCHES = 8
"""So many are remembered one by one, to tell how long batches took of late."""


def sum_up(latest: Iterable[tuple[int, float]]) -> dict[int, BatchTimes]:
    """Sum up single batches, each with its images and seconds, by size."""
    sums: dict[int, BatchTimes] = {}
    for images, seconds in latest:
        sums[images] = sums.get(images, BatchTimes(0, 0.0)) + BatchTimes(1, seconds)
    return sums


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the scheduler saw in one interval. Counts are images, not requests.

    `requests` brought the images that arrived, at most `largest_request` each, and `together` is the sum over
    them of their images squared (0: nobody counted). `late` images were answered after the SLO; `refused`
    were turned away (queue full, hopeless deadline); `expired` passed their deadline while queued;
    `cancelled` were withdrawn by their client (nobody's fault). `latencies_ms` is None when nothing
    completed. `batches` maps executed batch size to its times.
    """

    arrived: int = 0
    completed: int = 0
    late: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    failed: int = 0
    queued: int = 0
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    batches: Mapping[int, BatchTimes] = field(default_factory=dict)
    requests: int = 0
    together: int = 0
    largest_request: int = 0


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What the device reported for one interval. None: the device does not know.

    `clock_not_taken` says that the clock asked for is not in force although no event reason explains it,
    e.g. because somebody else holds it; empty: it is in force, or still settling, or none was asked for.
    """

    energy: Energy = NOT_MEASURED
    power_w: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    event_reasons: EventReason = EventReason.NONE
    temperature_c: float | None = None
    clock_not_taken: str = ""


class SoFar(NamedTuple):
    """What is known of an interval that has not ended: the last few batches, and the images that arrived."""

    batches: Mapping[int, BatchTimes]
    arrived: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What an alarm put an end to in the middle of an interval: a setting, and the last few batches under it.

    However long the clock took to settle when the interval began, these ran when the alarm was due: at `at_s`
    on the interval's clock, when `arrived` images of the interval had come.
    """

    point: OperatingPoint
    batches: Mapping[int, BatchTimes]
    at_s: float
    arrived: int


@dataclass(frozen=True, slots=True)
class Window:
    """One interval of operation: from `start_s` to `end_s` on the injected clock, under `point`.

    `cut`: an alarm changed the clock meanwhile; `point` is what was in force at the end.
    """

    start_s: float
    end_s: float
    point: OperatingPoint
    traffic: Traffic = field(default_factory=Traffic)
    device: DeviceReading = field(default_factory=DeviceReading)
    cut: Cut | None = None

    @property
    def duration_s(self) -> float:
        """Length of the interval in seconds; never negative."""
        return max(0.0, self.end_s - self.start_s)
