"""Energy between ticks of a counter, on a device whose clock and counter are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nvml_rack import make_rack, nvml_here

from bench.compare.energy import Meter, Meters, Span, idle_w
from optimizer.telemetry import DeviceReading, Energy, EnergySource, EventReason


@dataclass
class Ticking:
    """A counter that is refreshed every `period_s`; power as a function of time."""

    period_s: float
    watts_before_s: float = 100.0
    watts_after_s: float = 100.0
    change_s: float = 0.0
    measured: bool = True
    now_s: float = 0.013
    reasons: EventReason = EventReason.NONE
    _last_j: float = field(default=0.0)

    uuid = "made-up"
    simulated = False
    sm_clocks_mhz = ()

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        raise AssertionError("nothing is set here")

    def read(self) -> DeviceReading:
        if not self.measured:
            return DeviceReading()
        count_j = self._joules(self.now_s // self.period_s * self.period_s)
        joules, self._last_j = count_j - self._last_j, count_j
        return DeviceReading(
            Energy(joules, EnergySource.NVML_ENERGY_COUNTER), sm_clock_mhz=1500, event_reasons=self.reasons
        )

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _joules(self, until_s: float) -> float:
        before = min(until_s, self.change_s)
        return self.watts_before_s * before + self.watts_after_s * (until_s - before)

    def meter(self) -> Meter:
        return Meter(self, clock=lambda: self.now_s, sleep=self.sleep)


@pytest.mark.parametrize("period_s", [0.02, 0.1])
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_a_span_reaches_from_tick_to_tick(period_s: float, seconds: float) -> None:
    span = Ticking(period_s).meter().span(seconds)
    assert span.power_w == pytest.approx(100.0, rel=0.01)  # edges are seen 2 ms late at most
    assert seconds <= span.seconds <= seconds + period_s + 0.01
    assert span.source == "nvml-energy-counter"


def test_what_was_used_before_the_span_is_not_counted() -> None:
    device = Ticking(0.1, watts_before_s=900.0, watts_after_s=50.0, change_s=10.0, now_s=9.99)
    device.read()
    device.now_s = 10.15
    assert device.meter().span(1.0).power_w == pytest.approx(50.0, rel=0.01)


def test_without_a_counter_time_passes_and_nothing_is_measured() -> None:
    device = Ticking(0.1, measured=False)
    span = device.meter().span(1.0)
    assert (span.joules, span.power_w, span.source) == (None, None, "not-measured")
    assert device.now_s == pytest.approx(1.013)
    assert not device.meter().works()
    assert Ticking(0.1).meter().works()


def test_a_counter_that_stands_still_does_not_hold_anybody_up() -> None:
    device = Ticking(1e9)
    span = device.meter().span(1.0)
    assert span.joules == 0.0
    assert device.now_s < 2.0


def test_idle_power_is_the_median_of_its_parts() -> None:
    device = Ticking(0.02, watts_before_s=400.0, watts_after_s=60.0, change_s=0.5)
    assert idle_w(device.meter(), 5.0) == pytest.approx(60.0, rel=0.02)
    assert idle_w(Ticking(0.1, measured=False).meter(), 1.0) is None


def test_a_throttled_gpu_says_why() -> None:
    def said(reasons: EventReason) -> str:
        span: Span = Ticking(0.1, reasons=reasons).meter().span(0.5)
        return span.throttled

    assert said(EventReason.SW_POWER_CAP | EventReason.HW_SLOWDOWN) == "sw power cap, hw slowdown"
    assert said(EventReason.GPU_IDLE) == ""


def test_a_gpu_is_found_and_measured_through_nvml(tmp_path: Path) -> None:
    with make_rack(tmp_path) as rack, nvml_here(rack):
        meters = Meters(0)
        meters.open()
        try:
            assert meters.simulated
            assert meters.gpu_identity is not None
            assert meters.gpu is not None
            span = meters.gpu.span(0.3)
            assert span.power_w is not None
            assert span.power_w > 0.0
            assert span.source == "simulated"
            assert span.reading.sm_clock_mhz is not None
            assert meters.of(on_gpu=True) is meters.gpu
        finally:
            meters.close()


def test_without_nvml_the_reason_is_noted() -> None:
    meters = Meters(0)
    meters.open()
    meters.close()
    if meters.gpu is not None:
        pytest.skip("there is a GPU here")
    assert any("GPU is not measured" in note for note in meters.notes)
    assert meters.gpu_memory_mib() is None
