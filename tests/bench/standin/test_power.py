from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pynvml
import pytest
from nvml_rack import OpenRack, Rack, make_card, rack_env

FIELDS = [
    pynvml.NVML_FI_DEV_POWER_AVERAGE,
    pynvml.NVML_FI_DEV_POWER_INSTANT,
    pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
]
SW_POWER_CAP = pynvml.nvmlClocksEventReasonSwPowerCap
SW_THERMAL = pynvml.nvmlClocksEventReasonSwThermalSlowdown

OpenCard = Callable[..., tuple[Rack, object]]
RUN_BATCH = """
import ctypes, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
pynvml.nvmlLib.standinRunBatch(card, ctypes.c_double(1000.0), ctypes.c_double(0.3))
"""


@pytest.fixture
def card(open_rack: OpenRack) -> OpenCard:
    def make(kind: str = "ampere", **changes: object) -> tuple[Rack, object]:
        return open_rack(make_card(kind, **changes)), pynvml.nvmlDeviceGetHandleByIndex(0)

    return make


def watts(handle: object) -> float:
    return pynvml.nvmlDeviceGetPowerUsage(handle) / 1000


def joules(handle: object) -> float:
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000


def test_energy_is_power_times_time_through_work_rest_and_idling(
    card: OpenCard, run_batch: Callable[..., None]
) -> None:
    rack, handle = card(idle_w=30.0, standing_w=40.0, active_w=165.0, idle_after_s=0.5, counter_period_s=0.0)
    before_j = joules(handle)
    run_batch(handle, 2.0, 0.5)
    rack.skip(4.0)
    # Two seconds at half load, half a second awake, one and a half asleep, all at the highest clock.
    expected_j = 2.0 * (30 + 40 + 165 / 2) + 0.5 * (30 + 40) + 1.5 * 30
    assert joules(handle) - before_j == pytest.approx(expected_j, abs=0.002)
    assert rack.card().energy_j - before_j == pytest.approx(expected_j, abs=0.002)


def test_batches_of_one_process_run_one_after_the_other(
    card: OpenCard, run_batch: Callable[..., None]
) -> None:
    rack, handle = card(counter_period_s=0.0)
    run_batch(handle, 1.0)
    run_batch(handle, 1.0)
    rack.skip(1.5)
    assert rack.card().utilisation == 1.0
    rack.skip(0.6)
    assert rack.card().utilisation == 0.0


@pytest.mark.parametrize(
    ("seconds", "utilisation"), [(-1.0, 1.0), (1.0, 1.5), (float("nan"), 1.0), (1.0, -0.1)]
)
def test_a_batch_that_is_none_is_refused(
    card: OpenCard, run_batch: Callable[..., None], seconds: float, utilisation: float
) -> None:
    rack, handle = card()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        run_batch(handle, seconds, utilisation)
    assert rack.card().idle


def test_a_lower_clock_draws_less_and_the_voltage_has_a_floor(card: OpenCard) -> None:
    rack, handle = card(settle_s=0.0)
    rack.keep_busy(0, 1000.0)
    drawn = []
    for clock in (300, 600, 900, 1155, 1410):
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, clock, clock)
        drawn.append(watts(handle))
    assert drawn == sorted(drawn)
    below_knee, above_knee = (drawn[1] - drawn[0]) / 300, (drawn[4] - drawn[3]) / 255
    assert above_knee > 2 * below_knee
    assert drawn[4] == pytest.approx(32 + 40 + 165)


def test_a_power_limit_brings_the_clock_down_and_says_why(card: OpenCard) -> None:
    rack, handle = card(settle_s=0.0)
    rack.keep_busy(0, 1000.0)
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [150_000, 250_000]
    assert not pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & SW_POWER_CAP
    pynvml.nvmlDeviceSetPowerManagementLimit(handle, 150_000)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & SW_POWER_CAP
    capped_mhz = rack.card().sm_clock_mhz
    assert watts(handle) <= 150.0
    pynvml.nvmlDeviceSetGpuLockedClocks(handle, capped_mhz + 15, capped_mhz + 15)
    assert rack.card().sm_clock_mhz == capped_mhz
    pynvml.nvmlDeviceSetGpuLockedClocks(handle, capped_mhz - 15, capped_mhz - 15)
    assert not pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & SW_POWER_CAP


@pytest.mark.parametrize("milliwatts", [149_999, 250_001, 0])
def test_a_power_limit_out_of_range_is_refused(card: OpenCard, milliwatts: int) -> None:
    rack, handle = card()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, milliwatts)
    assert rack.card().is_default


def test_the_limit_in_force_and_the_default_are_told_apart(card: OpenCard) -> None:
    rack, handle = card()
    rack.set_power_limit(0, 200.0)
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle) == 200_000
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 200_000
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 250_000
    assert not rack.card().is_default


def test_the_energy_counter_moves_in_ticks(card: OpenCard) -> None:
    rack, handle = card(counter_period_s=0.1)
    rack.keep_busy(0, 1000.0)
    seen = set()
    for _ in range(40):
        rack.skip(0.01)
        seen.add(joules(handle))
    assert 4 <= len(seen) <= 5
    assert max(seen) - min(seen) <= rack.card().energy_j


def test_each_value_of_a_field_query_has_its_own_code(card: OpenCard) -> None:
    rack, handle = card()
    rack.fail("field:185", pynvml.NVML_ERROR_NOT_SUPPORTED)
    average, instant, energy, unknown = pynvml.nvmlDeviceGetFieldValues(handle, [*FIELDS, 9999])
    assert (average.nvmlReturn, average.value.uiVal) == (pynvml.NVML_ERROR_NOT_SUPPORTED, 0)
    assert (instant.nvmlReturn, instant.value.uiVal) == (0, 32_000)
    assert energy.nvmlReturn == 0
    assert unknown.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_a_field_query_fails_when_no_value_can_be_had(card: OpenCard) -> None:
    _, handle = card("pascal")
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetFieldValues(handle, FIELDS)


def test_the_average_follows_the_instant_in_about_a_second(card: OpenCard) -> None:
    rack, handle = card()
    rack.keep_busy(0, 1000.0)
    rack.skip(0.1)
    average, instant = pynvml.nvmlDeviceGetFieldValues(handle, FIELDS[:2])
    assert average.value.uiVal < 0.5 * instant.value.uiVal
    rack.skip(5.0)
    average, instant = pynvml.nvmlDeviceGetFieldValues(handle, FIELDS[:2])
    assert average.value.uiVal == pytest.approx(instant.value.uiVal, rel=0.01)


def test_a_pascal_card_has_no_energy_counter_but_tells_its_power(card: OpenCard) -> None:
    _, handle = card("pascal")
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    assert watts(handle) == 26.0


def test_temperature_rises_with_power_until_the_card_slows_itself_down(card: OpenCard) -> None:
    rack, handle = card(slowdown_c=60.0, thermal_time_s=5.0)
    assert pynvml.nvmlDeviceGetTemperatureV(handle, 0) == 33
    rack.keep_busy(0, 1000.0)
    rack.skip(1.0)
    assert 33 < pynvml.nvmlDeviceGetTemperature(handle, 0) < 60
    reasons, clocks = set(), set()
    for _ in range(40):
        rack.skip(0.5)
        reasons.add(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        clocks.add(rack.card().sm_clock_mhz)
    assert any(seen & SW_THERMAL for seen in reasons)
    assert clocks == {705, 1410}
    assert rack.card().temperature_c == pytest.approx(58.5, abs=2.0)


def test_a_temperature_can_be_held(card: OpenCard) -> None:
    rack, handle = card()
    rack.set_temperature(0, 95.0)
    rack.skip(1000.0)
    assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 95
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & SW_THERMAL
    rack.set_temperature(0, None)
    rack.skip(1000.0)
    assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 33


def test_reasons_can_be_given_and_a_brake_slows_the_card(card: OpenCard) -> None:
    rack, handle = card()
    rack.keep_busy(0, 1000.0)
    brake = pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    rack.set_reason(0, brake)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == brake
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == brake
    assert rack.card().sm_clock_mhz == 705
    rack.set_reason(0, 0, clock_mhz=1000)
    assert (rack.card().sm_clock_mhz, rack.card().event_reasons) == (990, 0)
    rack.set_reason(0, 0)
    assert rack.card().sm_clock_mhz == 1410


def test_utilisation_of_several_processes_adds_up_to_one_at_most(
    card: OpenCard, run_batch: Callable[..., None]
) -> None:
    rack, handle = card()
    run_batch(handle, 1000.0, 0.6)
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 60
    for expected in (0.9, 1.0):
        command = [sys.executable, "-c", RUN_BATCH]
        subprocess.run(command, env=rack_env(rack), check=True)
        assert rack.card().utilisation == pytest.approx(expected)
