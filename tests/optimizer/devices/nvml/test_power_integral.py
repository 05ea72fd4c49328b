from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from optimizer.devices.nvml.power_integral import PowerIntegral
from optimizer.telemetry import NOT_MEASURED, Energy, EnergySource

NEVER_S = 3600.0


class Meter:
    """Says what power it is told to; `now_s` is the time."""

    def __init__(self) -> None:
        self.watts: float | None = 100.0
        self.now_s = 0.0
        self.readings = threading.Semaphore(0)

    def power_w(self) -> float | None:
        self.readings.release()
        return self.watts


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def integral(meter: Meter) -> Iterator[PowerIntegral]:
    integral = PowerIntegral(meter.power_w, lambda: meter.now_s, period_s=NEVER_S)
    yield integral
    integral.close()


def joules(joules: float) -> Energy:
    return Energy(pytest.approx(joules), EnergySource.NVML_POWER)


def test_power_is_added_up_by_trapezoids(meter: Meter, integral: PowerIntegral) -> None:
    assert integral.take() == joules(0.0)
    for now_s, watts in ((0.5, 100.0), (1.0, 300.0), (1.5, 100.0)):
        meter.now_s, meter.watts = now_s, watts
        assert integral.sample()
    meter.now_s = 2.0
    assert integral.take() == joules(50.0 + 100.0 + 100.0 + 50.0)
    assert integral.take() == joules(0.0)


def test_a_sample_that_could_not_be_had_leaves_its_interval_unmeasured(
    meter: Meter, integral: PowerIntegral
) -> None:
    integral.take()
    meter.now_s, meter.watts = 0.5, None
    assert not integral.sample()
    meter.now_s, meter.watts = 0.6, 100.0
    assert integral.take() == NOT_MEASURED
    meter.now_s = 0.8
    assert integral.take() == joules(20.0)


@pytest.mark.parametrize("now_s", [1.5, -0.5])
def test_a_gap_and_a_clock_that_goes_back_are_not_measured(
    meter: Meter, integral: PowerIntegral, now_s: float
) -> None:
    integral.take()
    meter.now_s = now_s
    assert integral.take() == NOT_MEASURED
    meter.now_s += 0.5
    assert integral.take() == joules(50.0)


def test_power_that_cannot_be_had_at_all(meter: Meter, integral: PowerIntegral) -> None:
    meter.watts = None
    assert integral.take() == NOT_MEASURED
    assert integral.take() == NOT_MEASURED


def test_the_first_take_starts_a_daemon_thread_and_close_ends_it(meter: Meter) -> None:
    integral = PowerIntegral(meter.power_w, lambda: meter.now_s, period_s=0.001)
    assert not samplers()
    integral.take()
    for _ in range(4):  # the one of `take`, and some that the thread takes by itself
        assert meter.readings.acquire(timeout=30)
    (thread,) = samplers()
    assert thread.daemon
    integral.close()
    assert not samplers()
    assert integral.take() == NOT_MEASURED
    assert not samplers()


def test_closing_what_was_never_read(meter: Meter, integral: PowerIntegral) -> None:
    integral.close()
    integral.close()
    assert integral.take() == NOT_MEASURED


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gpu-power"]
