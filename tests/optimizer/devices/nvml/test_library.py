from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pynvml
import pytest
from nvml_rack import OpenRack, make_card

from optimizer.devices.nvml.failures import NvmlFailure, Remedy
from optimizer.devices.nvml.library import Card, Nvml, PowerField
from optimizer.telemetry import EventReason

BUSY_S = 3600.0


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def nvml(pauses: Pauses) -> Iterator[Nvml]:
    """Not open yet."""
    nvml = Nvml(sleep=pauses)
    yield nvml
    nvml.close()


def test_everything_that_is_read_is_what_is_true(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("hopper"), make_card("ampere", 1))
    rack.stop_clock()
    nvml.open()
    assert nvml.count() == 2
    assert nvml.driver_version() == "580.0-standin"
    assert nvml.simulated
    card = nvml.card(rack.uuid(0))
    truth = rack.card(0)
    assert (card.uuid, card.name(), card.index()) == (rack.uuid(0), "Stand-in H100 NVL", 0)
    assert card.architecture() == 9
    assert card.sm_clock_mhz() == truth.sm_clock_mhz == 345
    assert card.memory_clock_mhz() == truth.memory_clock_mhz
    assert card.supported_memory_clocks_mhz() == (1593, 2619)
    assert card.supported_sm_clocks_mhz(2619) == tuple(range(345, 1786, 15))
    assert card.default_application_clocks_mhz() == (1785, 2619)
    assert card.power_limit_w() == card.default_power_limit_w() == 400.0
    assert card.power_limit_range_w() == (200.0, 400.0)
    assert card.temperature_c() == round(truth.temperature_c)
    assert card.event_reasons() == EventReason.GPU_IDLE
    assert card.persistence()
    assert not card.mig_enabled()
    assert card.processes() == ()
    assert nvml.card_at(1).uuid == rack.uuid(1)
    assert not nvml.failures


def test_energy_and_power_of_a_busy_card(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    rack.stop_clock()
    rack.keep_busy(0, BUSY_S)
    rack.skip(5.0)
    nvml.open()
    card = nvml.card_at(0)
    before_j, truly_before_j = card.energy_j(), rack.card().energy_j
    rack.skip(10.0)
    used_j = rack.card().energy_j - truly_before_j
    assert used_j > 1000.0
    # The counter moves every 20 ms: at both ends up to 20 ms of some 250 W are not in it yet.
    assert card.energy_j() - before_j == pytest.approx(used_j, abs=6.0)
    reading = card.power_w()
    assert reading.watts == pytest.approx(rack.card().power_w, rel=0.02)
    assert reading.field is PowerField.AVERAGE


def test_how_busy_a_card_is(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    assert card.use() == 0.0
    rack.keep_busy(0, BUSY_S, 0.75)
    assert card.use() == 0.75


def test_settings_arrive_and_are_given_back(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("hopper"))
    nvml.open()
    card = nvml.card_at(0)
    card.lock_sm_clock(1005)
    card.lock_memory_clock(1593)
    card.set_power_limit_w(250.5)
    card.set_application_clocks(2619, 1110)
    truth = rack.card()
    assert truth.locked_sm_mhz == (1005, 1005)
    assert truth.locked_memory_mhz == (1593, 1593)
    assert truth.power_limit_w == card.power_limit_w() == 250.5
    assert truth.application_clocks_mhz == (2619, 1110)
    assert card.application_clocks_mhz() == (1110, 2619)
    card.unlock_sm_clock()
    card.unlock_memory_clock()
    card.set_power_limit_w(card.default_power_limit_w())
    card.reset_application_clocks()
    assert rack.card().is_default


def test_a_user_may_read_and_not_set(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(privileged_uid=65534)
    nvml.open()
    card = nvml.card_at(0)
    with pytest.raises(
        NvmlFailure, match=r"lock the SM clock at 705 MHz \(GPU-.*NO_PERMISSION.*keeper"
    ) as caught:
        card.lock_sm_clock(705)
    assert (caught.value.function, caught.value.code) == ("nvmlDeviceSetGpuLockedClocks", 4)
    assert caught.value.lasting
    assert rack.card().is_default
    assert nvml.failures == {("nvmlDeviceSetGpuLockedClocks", "NO_PERMISSION"): 1}
    assert card.sm_clock_mhz() == rack.card().sm_clock_mhz


@pytest.mark.parametrize("code", [10, 19, 27])
def test_what_passes_by_itself_is_tried_again(
    open_rack: OpenRack, nvml: Nvml, pauses: Pauses, code: int
) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    rack.fail("nvmlDeviceGetClockInfo", code, times=3)
    assert card.sm_clock_mhz() == 210
    assert len(pauses.seconds) == 3
    assert sum(nvml.failures.values()) == 3


def test_what_does_not_pass_is_given_up_soon(open_rack: OpenRack, nvml: Nvml, pauses: Pauses) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    rack.fail("nvmlDeviceGetClockInfo", 10)
    with pytest.raises(NvmlFailure, match="TIMEOUT") as caught:
        card.sm_clock_mhz()
    assert caught.value.remedy is Remedy.RETRY
    assert rack.calls("nvmlDeviceGetClockInfo") == 4
    assert sum(pauses.seconds) < 0.1
    assert nvml.failures == {("nvmlDeviceGetClockInfo", "TIMEOUT"): 4}


@pytest.mark.parametrize("code", [3, 4, 13, 15, 999])
def test_what_does_not_pass_by_itself_is_asked_once(
    open_rack: OpenRack, nvml: Nvml, pauses: Pauses, code: int
) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    rack.fail("nvmlDeviceGetClockInfo", code)
    with pytest.raises(NvmlFailure):
        card.sm_clock_mhz()
    assert rack.calls("nvmlDeviceGetClockInfo") == 1
    assert not pauses.seconds


def power_card(open_rack: OpenRack, nvml: Nvml, **changes: object) -> Card:
    open_rack(make_card("ampere", 0, **changes))
    nvml.open()
    return nvml.card_at(0)


def test_power_by_the_instant_field_where_there_is_no_average(open_rack: OpenRack, nvml: Nvml) -> None:
    card = power_card(open_rack, nvml, power_average=False)
    assert card.power_w().field is PowerField.INSTANT


def test_power_the_old_way_where_there_are_no_fields(open_rack: OpenRack, nvml: Nvml) -> None:
    card = power_card(open_rack, nvml, power_average=False, power_instant=False)
    reading = card.power_w()
    assert reading.field is PowerField.USAGE
    assert reading.watts == pytest.approx(32.0)


@pytest.mark.parametrize("code", [3, 10, 13, 999])
def test_power_the_old_way_when_fields_cannot_be_asked_for(
    open_rack: OpenRack, nvml: Nvml, code: int
) -> None:
    rack = open_rack()
    nvml.open()
    rack.fail("nvmlDeviceGetFieldValues", code)
    assert nvml.card_at(0).power_w().field is PowerField.USAGE


@pytest.mark.parametrize("code", [15, 16])
@pytest.mark.parametrize("function", ["nvmlDeviceGetFieldValues", "field:185", "field:186"])
def test_a_lost_gpu_is_not_asked_for_its_power_another_way(
    open_rack: OpenRack, nvml: Nvml, function: str, code: int
) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    rack.fail(function, code)
    with pytest.raises(NvmlFailure) as caught:
        card.power_w()
    assert caught.value.remedy is Remedy.STOP
    assert sum(nvml.failures.values()) == 1
    assert rack.calls("nvmlDeviceGetPowerUsage") == 0


def test_event_reasons_under_their_former_name(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    nvml.open()
    rack.fail("nvmlDeviceGetCurrentClocksEventReasons", 13)
    assert nvml.card_at(0).event_reasons() == EventReason.GPU_IDLE


def test_event_reasons_that_have_no_name_here_are_left_out(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    rack.set_reason(0, 0x40 | 0x100)
    nvml.open()
    assert nvml.card_at(0).event_reasons() == EventReason.GPU_IDLE | EventReason.HW_THERMAL_SLOWDOWN


@pytest.mark.parametrize("code", [13, 26])
def test_the_temperature_under_its_later_name(open_rack: OpenRack, nvml: Nvml, code: int) -> None:
    rack = open_rack()
    rack.set_temperature(0, 71.0)
    nvml.open()
    rack.fail("nvmlDeviceGetTemperature", code)
    assert nvml.card_at(0).temperature_c() == 71.0


def test_mig(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("ampere"), make_card("volta", 1))
    rack.set_mig(0, enabled=True)
    nvml.open()
    assert nvml.card_at(0).mig_enabled()
    assert not nvml.card_at(1).mig_enabled()
    assert nvml.failures == {("nvmlDeviceGetMigMode", "NOT_SUPPORTED"): 1}


def test_the_processes_on_a_gpu(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    rack.set_processes(0, [4712, 4711])
    nvml.open()
    assert nvml.card_at(0).processes() == (4711, 4712)


def test_a_function_that_the_bindings_lack(
    open_rack: OpenRack, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_rack()
    nvml.open()
    card = nvml.card_at(0)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")
    with pytest.raises(NvmlFailure, match="FUNCTION_NOT_FOUND"):
        card.energy_j()


def test_a_name_that_is_no_text(open_rack: OpenRack, nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    open_rack()
    nvml.open()
    card = nvml.card_at(0)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda _handle: b"\xff".decode())
    with pytest.raises(NvmlFailure, match=r"its name .*UNKNOWN"):
        card.name()


def test_the_failures_of_cards_are_counted_together(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("ampere"), make_card("ampere", 1))
    nvml.open()
    cards = [nvml.card_at(index) for index in range(2)]
    rack.fail("nvmlDeviceGetName", 999)
    for card in cards:
        with pytest.raises(NvmlFailure):
            card.name()
    counted = nvml.failures
    assert counted == cards[0].failures == {("nvmlDeviceGetName", "UNKNOWN"): 2}
    counted.clear()  # a copy
    assert nvml.failures


def test_closing_never_raises_and_opening_again_helps(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    nvml.open()
    rack.fail("nvmlShutdown", 999)
    nvml.close()
    nvml.close()
    assert nvml.failures == {("nvmlShutdown", "UNKNOWN"): 1}
    nvml.open()
    assert nvml.count() == 1


@pytest.mark.parametrize("code", [9, 12, 18])
def test_no_nvml(open_rack: OpenRack, nvml: Nvml, code: int) -> None:
    rack = open_rack()
    rack.fail("nvmlInit", code)
    with pytest.raises(NvmlFailure) as caught:
        nvml.open()
    assert caught.value.remedy is Remedy.ABSENT
    nvml.close()


def test_only_the_standard_library_is_loaded_beside_the_bindings() -> None:
    script = (
        "import sys; before = set(sys.modules); import optimizer.devices.nvml.library;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"optimizer", "pynvml"}


def test_without_the_library_the_failure_says_what_to_install(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    with pytest.raises(NvmlFailure, match=r"LIBRARY_NOT_FOUND.*install the NVIDIA driver") as caught:
        nvml.open()
    assert caught.value.remedy is Remedy.ABSENT
    assert not nvml.simulated


def _no_library(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")
