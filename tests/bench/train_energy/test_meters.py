from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.train_energy.meters import CpuUse, EnergyMeter, SampledUse
from optimizer.telemetry import NOT_MEASURED, DeviceReading, Energy, EnergySource

RAPL, COUNTER = EnergySource.RAPL, EnergySource.NVML_ENERGY_COUNTER


class Readings:
    """A device that reads out what it is given."""

    uuid, simulated, sm_clocks_mhz = "made-up", False, ()

    def __init__(self, *energies: Energy) -> None:
        self._left: Iterator[Energy] = iter(energies)

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        raise AssertionError

    def read(self) -> DeviceReading:
        return DeviceReading(energy=next(self._left))


def measured(*gpus: Readings, laps: int = 1) -> Energy:
    meter = EnergyMeter(gpus)
    meter.start()
    for _ in range(laps):
        meter.lap()
    return meter.stop()


def test_laps_add_up_from_the_start_on() -> None:
    assert measured(Readings(*(Energy(j, RAPL) for j in (7.0, 1.0, 2.0)))) == Energy(3.0, RAPL)


def test_devices_add_up() -> None:
    one, other = (Readings(*(Energy(j, COUNTER) for j in (0.0, j, j))) for j in (1.0, 10.0))
    assert measured(one, other) == Energy(22.0, COUNTER)


def test_a_device_that_was_lost_leaves_nothing_to_tell() -> None:
    lost = Readings(Energy(0.0, COUNTER), Energy(5.0, COUNTER), NOT_MEASURED)
    assert measured(lost) == NOT_MEASURED


def test_no_device_is_no_energy() -> None:
    assert measured() == NOT_MEASURED


def test_of_unlike_sources_the_less_exact_one_speaks() -> None:
    counted = Readings(*(Energy(1.0, COUNTER) for _ in range(3)))
    sampled = Readings(*(Energy(1.0, EnergySource.NVML_POWER) for _ in range(3)))
    assert measured(counted, sampled).source is EnergySource.NVML_POWER


def test_a_sleeping_process_uses_no_processor_and_a_working_one_does() -> None:
    use = CpuUse(cores=1)
    use.start()
    time.sleep(0.05)
    asleep = use.stop()
    use.start()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    awake = use.stop()
    assert asleep is not None
    assert awake is not None
    assert asleep < awake


def test_use_is_the_mean_over_devices() -> None:
    use = SampledUse([lambda: 0.2, lambda: 0.6], OSError)
    use.start()
    time.sleep(0.5)
    assert use.stop() == pytest.approx(0.4)


def test_a_device_that_cannot_be_asked_ends_the_sampling() -> None:
    def fail() -> float:
        raise OSError

    use = SampledUse([fail], OSError)
    use.start()
    time.sleep(0.3)
    assert use.stop() is None
