"""A server as a fluid: no randomness, so that what is best can be told by trying everything."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.registry import OfflineSweep
from optimizer.surge import Tripwire
from optimizer.telemetry import (
    BatchTimes,
    DeviceReading,
    Energy,
    EnergySource,
    EventReason,
    SoFar,
    Traffic,
    Window,
)

CLOCKS = tuple(range(300, 1501, 15))
GRID = OperatingGrid(tuple(range(1, 65)), CLOCKS)
IDLE_W = 20.0
BOARD_LIMIT_W = 300.0
SECOND = 1.0


def batch_s(batch: int, clock_mhz: float) -> float:
    """2 ms and 0.2 ms an image at 1500 MHz; half of it in proportion to the clock's period."""
    return (0.002 + 0.0002 * batch) * (0.5 + 0.5 * 1500 / clock_mhz)


def busy_power_w(batch: int, clock_mhz: float) -> float:
    """Half of it rises with the cube of the clock, and a part with the batch."""
    return 60.0 + (60.0 + batch) * clock_mhz / 1500 + 100.0 * (clock_mhz / 1500) ** 3


SWEEP = OfflineSweep(batch_s, busy_power_w, IDLE_W, BOARD_LIMIT_W)


class FluidPlant:
    """Implements `Plant`. Every sense is a second at a constant rate; an unset clock runs at the highest.

    A batch holds what arrives while one runs, or as many as wait, or what its delay allows, up to its limit.
    """

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.point = GRID.default
        self.acts: list[OperatingPoint] = []
        self.queued = 0.0
        self.now_s = 0.0

    def act(self, point: OperatingPoint) -> None:
        self.point = point
        self.acts.append(point)

    def so_far(self) -> SoFar:
        """Nothing is cut short here."""
        return SoFar({}, 0)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Nothing surges here."""

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        self.now_s += SECOND
        clock_mhz = self.point.sm_clock_mhz or CLOCKS[-1]
        batch = self._batch(clock_mhz)
        seconds = batch_s(batch, clock_mhz)
        waiting = self.queued + self.rate_per_s
        served = min(waiting, batch / seconds)
        before_s = self.queued * seconds / batch
        self.queued = waiting - served
        p99_ms = (max(seconds, self.point.max_delay_ms / 1e3) + seconds + before_s) * 1e3
        count = int(served) // batch
        busy = min(1.0, served / batch * seconds)
        watts = IDLE_W + busy * (busy_power_w(batch, clock_mhz) - IDLE_W)
        late = int(served) if p99_ms > slo_ms else 0
        traffic = Traffic(
            arrived=int(self.rate_per_s),
            completed=int(served),
            late=late,
            queued=int(self.queued),
            latency_p50_ms=p99_ms,
            latency_p95_ms=p99_ms,
            latency_p99_ms=p99_ms,
            batches={batch: BatchTimes(count, count * seconds)},
        )
        return traffic, DeviceReading(Energy(watts, EnergySource.SIMULATED), watts, clock_mhz)

    def _batch(self, clock_mhz: int) -> int:
        limit, batch = self.point.batch_limit, 1
        if self.queued > limit:
            return limit
        grown = int(self.rate_per_s * self.point.max_delay_ms / 1e3)
        while batch < limit and batch < max(grown, self.rate_per_s * batch_s(batch, clock_mhz)):
            batch += 1
        return batch


def settled(point: OperatingPoint, rate_per_s: float, slo_ms: float) -> tuple[Traffic, float]:
    """Return the traffic and the joules of a second at a setting, once it has been in force for long."""
    plant = FluidPlant(rate_per_s)
    plant.act(point)
    for _ in range(20):
        traffic, reading = plant.sense(slo_ms)
    return traffic, reading.energy.joules or 0.0


def window(
    point: OperatingPoint,
    *,
    images: int = 1000,
    p99_ms: float = 10.0,
    late: int = 0,
    queued: int = 0,
    watts: float | None = 100.0,
    batches: dict[int, BatchTimes] | None = None,
    reasons: EventReason = EventReason.NONE,
    seconds: float = SECOND,
) -> Window:
    """Return a window made by hand."""
    energy = (
        Energy(watts * seconds, EnergySource.SIMULATED)
        if watts is not None
        else Energy(None, EnergySource.NOT_MEASURED)
    )
    ran = {8: BatchTimes(images // 8, images // 8 * 0.003)} if batches is None else batches
    traffic = Traffic(
        arrived=images,
        completed=images,
        late=late,
        queued=queued,
        latency_p50_ms=p99_ms if images else None,
        latency_p95_ms=p99_ms if images else None,
        latency_p99_ms=p99_ms if images else None,
        batches=ran if images else {},
    )
    return Window(
        0.0, seconds, point, traffic, DeviceReading(energy, watts, point.sm_clock_mhz, event_reasons=reasons)
    )
