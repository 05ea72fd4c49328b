"""Every function of NVML that is called here, failing with every code: no crash, the right degradation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from nvml_rack import OpenRack, Rack, make_card
from rack_time import DirectActuator, RackTime

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.capabilities import own_rights, probe
from optimizer.devices.nvml.discovery import Found, find_gpus
from optimizer.devices.nvml.failures import NvmlFailure, Remedy, name_of, remedy_for
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Nvml
from optimizer.telemetry import NOT_MEASURED, DeviceReading, EventReason

CODES = (1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 18, 19, 26, 27, 999, 4711)
TO_OPEN = ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID")
TO_READ = (
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetFieldValues",
    "field:185",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerManagementLimit",
)
TO_FIND_CLOCKS = (
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetSupportedGraphicsClocks",
    "nvmlDeviceGetApplicationsClock",
)
TO_SET = (
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceSetPowerManagementLimit",
)
# Where another function or field answers as well, only a GPU that is gone is missed.
REPLACED = {
    "nvmlDeviceGetFieldValues": set(CODES),
    "field:185": set(CODES),
    "nvmlDeviceGetCurrentClocksEventReasons": {13},
    "nvmlDeviceGetTemperature": {13, 26},
}
SECONDS = 5

Setup = tuple[Rack, RackTime, Nvml, NvmlGpu]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def setup(open_rack: OpenRack, stack: ExitStack) -> Setup:
    rack = open_rack(make_card("hopper"))
    rack.keep_busy(0, 3600.0)
    nvml = stack.enter_context(Nvml(sleep=lambda _: None))
    time = RackTime(rack)
    card = nvml.card_at(0)
    gpu = NvmlGpu(card, DirectActuator(card), clock=time, power_limit_w=350.0)
    stack.callback(gpu.close)
    return rack, time, nvml, gpu


def run_a_while(time: RackTime, gpu: NvmlGpu) -> list[DeviceReading]:
    readings = []
    for _ in range(SECONDS):
        time.pass_by(1.0)
        readings.append(gpu.read())
    return readings


def set_clock(gpu: NvmlGpu, clock_mhz: int | None) -> str:
    """Set as the governor does; returns the refusal."""
    try:
        gpu.set_sm_clock_mhz(clock_mhz)
    except DeviceError as refusal:
        return str(refusal)
    return ""


def gone(code: int) -> bool:
    return remedy_for(code) in (Remedy.STOP, Remedy.ABSENT)


def failure_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "NVML says" in record.getMessage()
    ]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("function", TO_READ)
def test_reading(setup: Setup, caplog: pytest.LogCaptureFixture, function: str, code: int) -> None:
    rack, time, nvml, gpu = setup
    assert set_clock(gpu, 1005) == ""
    whole = run_a_while(time, gpu)[-1]
    rack.fail(function, code)
    readings = run_a_while(time, gpu)
    if gone(code):
        assert name_of(code) in gpu.lost
        assert readings[-1] == DeviceReading()
        assert "nothing is set any more" in set_clock(gpu, 1110)
    else:
        assert gpu.lost == ""
        assert set_clock(gpu, 1110) == ""
        check_what_is_missing(function, code, whole, readings)
    named = "nvmlDeviceGetFieldValues" if function.startswith("field") else function
    assert nvml.failures[named, name_of(code)] >= 1
    assert len(failure_lines(caplog)) == (0 if not gone(code) and code in REPLACED.get(function, ()) else 1)


def check_what_is_missing(
    function: str, code: int, whole: DeviceReading, readings: list[DeviceReading]
) -> None:
    last = readings[-1]
    if function == "nvmlDeviceGetTotalEnergyConsumption":
        assert readings[0].energy == NOT_MEASURED
        # From power now; the seconds between readings here are longer than it bridges without its thread.
        assert all(reading.energy.joules is None or reading.energy.joules >= 0.0 for reading in readings)
    else:
        assert last.energy.joules == pytest.approx(whole.energy.joules, rel=0.05)
    clocks = function == "nvmlDeviceGetClockInfo"
    assert last.sm_clock_mhz == (None if clocks else 1005)
    assert last.memory_clock_mhz == (None if clocks else 2619)
    replaced = code in REPLACED.get(function, ())
    reasons = function == "nvmlDeviceGetCurrentClocksEventReasons" and not replaced
    assert last.event_reasons == (EventReason.NONE if reasons else whole.event_reasons)
    temperature = function == "nvmlDeviceGetTemperature" and not replaced
    assert (last.temperature_c is None) == temperature
    assert last.power_w is not None
    assert last.clock_not_taken == ""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("function", TO_FIND_CLOCKS)
def test_finding_the_legal_clocks(
    setup: Setup, caplog: pytest.LogCaptureFixture, function: str, code: int
) -> None:
    rack, time, nvml, gpu = setup
    rack.fail(function, code)
    harmless = (function == "nvmlDeviceGetMigMode" and code in (3, 13)) or (
        function == "nvmlDeviceGetApplicationsClock" and not gone(code)
    )
    for _ in range(3):
        assert bool(gpu.sm_clocks_mhz) == harmless
    assert len(failure_lines(caplog)) == (0 if harmless else 1)
    assert nvml.failures[function, name_of(code)] >= 1
    reading = run_a_while(time, gpu)[-1]
    if gone(code):
        assert name_of(code) in gpu.lost
        assert reading == DeviceReading()
        return
    assert reading.sm_clock_mhz is not None  # reading goes on
    assert reading.energy.joules
    rack.clear_failures()
    assert gpu.sm_clocks_mhz  # and what passes, passes


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("function", TO_SET)
def test_setting(setup: Setup, caplog: pytest.LogCaptureFixture, function: str, code: int) -> None:
    rack, time, nvml, gpu = setup
    assert gpu.sm_clocks_mhz
    rack.fail(function, code)
    refusal = set_clock(gpu, None if "Reset" in function else 1005)
    assert f"NVML says {name_of(code)}" in refusal
    assert nvml.failures[function, name_of(code)] == (4 if remedy_for(code) is Remedy.RETRY else 1)
    reading = run_a_while(time, gpu)[-1]
    if gone(code) and "Set" in function:
        check_that_it_stops(rack, gpu, reading)
        assert len(failure_lines(caplog)) == 1
        return
    assert reading.energy.joules
    assert reading.clock_not_taken == ""
    rack.clear_failures()
    assert set_clock(gpu, 1005) == ""
    assert run_a_while(time, gpu)[-1].sm_clock_mhz == 1005


def check_that_it_stops(rack: Rack, gpu: NvmlGpu, reading: DeviceReading) -> None:
    """A GPU that is gone is neither read nor set any more."""
    assert reading == DeviceReading()
    before = rack.set_history()
    assert "nothing is set any more" in set_clock(gpu, 1005)
    assert rack.set_history() == before


@pytest.mark.parametrize("code", CODES)
def test_everything_at_once(setup: Setup, caplog: pytest.LogCaptureFixture, code: int) -> None:
    rack, time, _nvml, gpu = setup
    rack.fail("*", code)
    assert gpu.sm_clocks_mhz == ()
    assert set_clock(gpu, 1005)
    reading = run_a_while(time, gpu)[-1]
    assert reading == DeviceReading()
    kinds = Counter(line.split(": NVML says")[0] for line in failure_lines(caplog))
    assert set(kinds.values()) <= {1}, "a failure of one kind is one line"


def find_opened(nvml: Nvml) -> tuple[Found, ...]:
    nvml.open()
    return find_gpus(nvml)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("function", TO_OPEN)
def test_opening(open_rack: OpenRack, stack: ExitStack, function: str, code: int) -> None:
    rack = open_rack()
    rack.fail(function, code)
    nvml = Nvml(sleep=lambda _: None)
    stack.callback(nvml.close)
    if function in ("nvmlInit", "nvmlDeviceGetCount") or remedy_for(code) is Remedy.ABSENT:
        with pytest.raises(NvmlFailure, match=name_of(code)):
            find_opened(nvml)
    else:
        (found,) = find_opened(nvml)
        assert found.card is None
        assert f"NVML says {name_of(code)}" in found.why_not
    assert nvml.failures[function, name_of(code)] >= 1


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("function", [*TO_READ, *TO_FIND_CLOCKS])
def test_probing(setup: Setup, function: str, code: int) -> None:
    rack, _time, nvml, _gpu = setup
    card = nvml.card_at(0)
    rack.fail(function, code)
    before = rack.set_history()
    found = probe(card, own_rights())
    assert len(found.items) == 15
    assert all(item.available or (item.detail and item.remedy) for item in found.items)
    assert rack.set_history() == before
