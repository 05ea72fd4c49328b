"""What is expected at a setting, from everything learned so far."""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.models.arrivals import ArrivalModel
from optimizer.models.batch_time import BatchTimeModel
from optimizer.models.power import PowerModel
from optimizer.models.queueing import predict_service
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.revenue import Targets, profit
from optimizer.telemetry import EventReason, Window

_LATE_SHARE_RESOLVED = 0.001
"""A smaller predicted late share is beyond what the queueing model can tell, and counts as none."""
_OVERHEAD_WEIGHT = 0.2
_MORE_CAUTION, _MOST_CAUTION, _CAUTION_MEMORY = 1.25, 4.0, 0.98


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected at a setting on the present load.

    Args:
        point: the setting.
        revenue_per_s: by the targets; without energy where it is not measured.
        cost_per_s: what that falls short of every image in time and free energy.
        p99_ms: latency, infinite when the load exceeds the capacity.
        two_batches_ms: two full batches in a row, what an image waits at worst without a queue.
        power_w: mean power; None where energy is not measured.
        capacity_per_s: images a second in full batches.
    """

    point: OperatingPoint
    revenue_per_s: float
    cost_per_s: float
    p99_ms: float
    two_batches_ms: float
    power_w: float | None
    capacity_per_s: float

    def __str__(self) -> str:
        """Read as `1.23456/h, p99 12.3 ms, 143 W`."""
        power = "power not measured" if self.power_w is None else f"{self.power_w:.0f} W"
        return f"{self.revenue_per_s * 3600:.6g}/h, p99 {self.p99_ms:.1f} ms, {power}"


class Forecaster:
    """Learns from windows; forecasts any setting.

    Latency is what the queueing model says, times a caution that grows with each unexpected miss, plus what
    was measured on top of it lately: threads, queues and the wire.

    Args:
        grid: the legal settings.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        highest = grid.sm_clocks_mhz[-1] if grid.sm_clocks_mhz else None
        self.arrivals = ArrivalModel()
        self._times = BatchTimeModel(highest)
        self._power = PowerModel(highest)
        self._energy_measured = False
        self._overhead_ms = 0.0
        self._caution = 1.0

    @property
    def ready(self) -> bool:
        """Whether any batch was seen."""
        return self._times.ready

    def learn(self, window: Window) -> None:
        """Learn batch times and power from a window that is evidence about its setting."""
        clock_mhz = _clock_in_force_mhz(window)
        batches = window.traffic.batches
        self._times.observe(batches, clock_mhz)
        joules = window.device.energy.joules
        self._energy_measured = joules is not None
        if joules is not None:
            busy = min(1.0, sum(times.total_s for times in batches.values()) / window.duration_s)
            images = sum(size * times.count for size, times in batches.items())
            self._power.observe(joules / window.duration_s, busy, images / window.duration_s, clock_mhz)

    def learn_latency(self, window: Window, targets: Targets) -> None:
        """Learn the overhead from a window that kept the SLO, and grow a little bolder."""
        measured_ms = window.traffic.latency_p99_ms
        predicted_ms = self.at(window.point, targets).p99_ms - self._overhead_ms
        if measured_ms is not None and predicted_ms < targets.slo_p99_ms:
            excess_ms = max(0.0, measured_ms - predicted_ms)
            self._overhead_ms += _OVERHEAD_WEIGHT * (excess_ms - self._overhead_ms)
        self._caution = max(1.0, self._caution * _CAUTION_MEMORY)

    def distrust(self) -> None:
        """Expect longer latencies from now on: the SLO was missed where it was predicted to hold."""
        self._caution = min(_MOST_CAUTION, self._caution * _MORE_CAUTION)

    def at(self, point: OperatingPoint, targets: Targets) -> Forecast:
        """Return what is expected at a setting."""
        time, limit = self._times.at(point.sm_clock_mhz), point.batch_limit
        rate, dispersion = self.arrivals.rate_per_s, self.arrivals.dispersion
        spare_s = max(1e-6, (targets.slo_p99_ms - self._overhead_ms) / self._caution / 1e3)
        careful = predict_service(time, limit, self.arrivals.cautious_rate_per_s, dispersion, spare_s)
        usual = predict_service(time, limit, rate, dispersion, spare_s)
        late = rate * (careful.late_share if careful.late_share > _LATE_SHARE_RESOLVED else 0.0)
        power_w = None
        if self._energy_measured and self._power.ready:
            power_w = self._power.watts(usual.busy, usual.images_per_s, point.sm_clock_mhz)
        revenue = profit(targets, rate - late, late, power_w).total
        return Forecast(
            point=point,
            revenue_per_s=revenue,
            cost_per_s=profit(targets, rate, 0.0, None).total - revenue,
            p99_ms=careful.p99_s * 1e3 * self._caution + self._overhead_ms,
            two_batches_ms=2e3 * time.batch_s(limit) + self._overhead_ms,
            power_w=power_w,
            capacity_per_s=limit / time.batch_s(limit),
        )


def _clock_in_force_mhz(window: Window) -> int | None:
    """The measured clock where the power limit held it down, else the one that was set."""
    measured_mhz = window.device.sm_clock_mhz
    if window.point.sm_clock_mhz is None or EventReason.SW_POWER_CAP not in window.device.event_reasons:
        return window.point.sm_clock_mhz
    return measured_mhz or window.point.sm_clock_mhz
