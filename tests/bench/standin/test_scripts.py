from __future__ import annotations

import pynvml
import pytest
from nvml_rack import OpenRack, Rack, make_card

from bench.standin.library import RackError

CODES = (1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 18, 19, 26, 27, 999)
CLOCK = "nvmlDeviceGetClockInfo"
LOCK = "nvmlDeviceSetGpuLockedClocks"

# Every NVML function that Boulton calls, with arguments that are good; no argument: of the system.
CALLS = {
    "nvmlInit": (),
    "nvmlSystemGetDriverVersion": (),
    "nvmlDeviceGetCount": (),
    "nvmlDeviceGetHandleByIndex": (0,),
    "nvmlDeviceGetHandleByUUID": ("GPU-57a4d100-0000-4000-8000-000000000000",),
    "nvmlDeviceGetName": ("card",),
    "nvmlDeviceGetUUID": ("card",),
    "nvmlDeviceGetIndex": ("card",),
    "nvmlDeviceGetArchitecture": ("card",),
    "nvmlDeviceGetPersistenceMode": ("card",),
    "nvmlDeviceGetMigMode": ("card",),
    "nvmlDeviceGetComputeRunningProcesses": ("card",),
    "nvmlDeviceGetAPIRestriction": ("card", 0),
    "nvmlDeviceGetClockInfo": ("card", pynvml.NVML_CLOCK_SM),
    "nvmlDeviceGetApplicationsClock": ("card", pynvml.NVML_CLOCK_SM),
    "nvmlDeviceGetDefaultApplicationsClock": ("card", pynvml.NVML_CLOCK_SM),
    "nvmlDeviceGetSupportedMemoryClocks": ("card",),
    "nvmlDeviceGetSupportedGraphicsClocks": ("card", 1215),
    "nvmlDeviceGetPowerUsage": ("card",),
    "nvmlDeviceGetTotalEnergyConsumption": ("card",),
    "nvmlDeviceGetFieldValues": ("card", [186]),
    "nvmlDeviceGetPowerManagementLimit": ("card",),
    "nvmlDeviceGetPowerManagementDefaultLimit": ("card",),
    "nvmlDeviceGetPowerManagementLimitConstraints": ("card",),
    "nvmlDeviceGetCurrentClocksEventReasons": ("card",),
    "nvmlDeviceGetCurrentClocksThrottleReasons": ("card",),
    "nvmlDeviceGetSupportedClocksEventReasons": ("card",),
    "nvmlDeviceGetTemperature": ("card", 0),
    "nvmlDeviceGetTemperatureV": ("card", 0),
    "nvmlDeviceSetGpuLockedClocks": ("card", 900, 900),
    "nvmlDeviceResetGpuLockedClocks": ("card",),
    "nvmlDeviceSetMemoryLockedClocks": ("card", 1215, 1215),
    "nvmlDeviceResetMemoryLockedClocks": ("card",),
    "nvmlDeviceSetApplicationsClocks": ("card", 1215, 900),
    "nvmlDeviceResetApplicationsClocks": ("card",),
    "nvmlDeviceSetPowerManagementLimit": ("card", 200_000),
    "nvmlShutdown": (),
}


@pytest.fixture
def rack(open_rack: OpenRack) -> Rack:
    return open_rack(make_card("ampere", settle_s=0.0))


@pytest.fixture
def card(rack: Rack) -> object:
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def call(function: str, card: object) -> object:
    arguments = [card if argument == "card" else argument for argument in CALLS[function]]
    return getattr(pynvml, function)(*arguments)


def code_of(function: str, *arguments: object) -> int:
    try:
        getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return 0


def code_of_call(function: str, card: object) -> int:
    try:
        call(function, card)
    except pynvml.NVMLError as error:
        return int(error.value)
    except pynvml.NVMLLibraryMismatchError:
        # Some functions of nvidia-ml-py tell a missing function so, and this is no NVMLError.
        return int(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    return 0


@pytest.mark.parametrize("function", CALLS)
def test_every_function_returns_every_code_and_then_works_again(
    rack: Rack, card: object, function: str
) -> None:
    for code in CODES:
        rack.fail(function, code, times=1)
        assert code_of_call(function, card) == code
    assert rack.card().is_default
    begun = rack.calls(function)
    call(function, card)
    assert rack.calls(function) > begun


def test_a_failure_once_twice_and_for_ever(rack: Rack, card: object) -> None:
    rack.fail(CLOCK, 10, times=1)
    rack.fail(CLOCK, 19, times=2)
    assert [code_of(CLOCK, card, 1) for _ in range(5)] == [10, 19, 19, 0, 0]
    rack.fail(CLOCK, 27)
    assert [code_of(CLOCK, card, 1) for _ in range(3)] == [27, 27, 27]
    rack.clear_failures()
    assert code_of(CLOCK, card, 1) == 0


def test_a_failure_from_a_time_on(rack: Rack, card: object) -> None:
    rack.fail(CLOCK, 15, after_s=5.0)
    rack.skip(4.9)
    assert code_of(CLOCK, card, 1) == 0
    rack.skip(0.2)
    assert code_of(CLOCK, card, 1) == 15


def test_scripts_apply_in_the_order_in_which_they_were_made(rack: Rack, card: object) -> None:
    rack.fail(CLOCK, 10, times=1)
    assert code_of(CLOCK, card, 1) == 10
    rack.fail(CLOCK, 19, times=1)
    rack.fail(CLOCK, 27, times=1)
    assert [code_of(CLOCK, card, 1) for _ in range(3)] == [19, 27, 0]


def test_a_failure_of_one_card_only(open_rack: OpenRack) -> None:
    rack = open_rack(make_card(), make_card("volta", 1))
    first, second = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    rack.fail(CLOCK, 16, card=1)
    assert (code_of(CLOCK, first, 1), code_of(CLOCK, second, 1)) == (0, 16)


def test_a_failure_of_everything_about_one_card(open_rack: OpenRack) -> None:
    rack = open_rack(make_card(), make_card("volta", 1))
    first, second = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    rack.fail("*", 16, card=1)
    assert code_of(LOCK, second, 900, 900) == code_of("nvmlDeviceGetName", second) == 16
    assert code_of(LOCK, first, 900, 900) == code_of("nvmlDeviceGetCount") == 0


def test_a_setter_that_fails_has_no_effect_unless_it_is_told_to(rack: Rack, card: object) -> None:
    rack.fail(LOCK, 10, times=1)
    rack.fail(LOCK, 10, times=1, when="after")
    assert code_of(LOCK, card, 900, 900) == 10
    assert rack.card().is_default
    assert code_of(LOCK, card, 900, 900) == 10
    assert rack.card().locked_sm_mhz == (900, 900)


def test_the_history_tells_who_set_what_and_what_came_of_it(rack: Rack, card: object) -> None:
    rack.fail(LOCK, 10, times=1)
    code_of(LOCK, card, 900, 1200)
    code_of(LOCK, card, 600, 600)
    code_of("nvmlDeviceSetPowerManagementLimit", card, 1)
    code_of("nvmlDeviceGetPowerUsage", card)
    history = rack.set_history()
    assert [(entry.function, entry.arguments, entry.code) for entry in history] == [
        (LOCK, (900, 1200), 10),
        (LOCK, (600, 600), 0),
        ("nvmlDeviceSetPowerManagementLimit", (1, 0), 2),
    ]
    assert rack.set_history(card=0) == history
    assert rack.set_history(card=1) == ()


def test_the_history_keeps_the_latest(rack: Rack, card: object) -> None:
    for count in range(8200):
        pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900 + count)
    history = rack.set_history()
    assert len(history) == 8192
    assert history[-1].arguments == (900, 900 + 8199)
    assert history[0].arguments == (900, 900 + 8)


def test_a_lost_card_is_lost_for_every_call_and_comes_back_as_it_was(open_rack: OpenRack) -> None:
    rack = open_rack(make_card(), make_card("volta", 1))
    first, second = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    pynvml.nvmlDeviceSetGpuLockedClocks(first, 900, 900)
    rack.lose(0)
    for function, arguments in CALLS.items():
        if arguments and arguments[0] == "card":
            with pytest.raises(pynvml.NVMLError_GpuIsLost):
                call(function, first)
    assert (
        code_of("nvmlDeviceGetHandleByIndex", 0) == code_of("nvmlDeviceGetHandleByUUID", rack.uuid(0)) == 15
    )
    assert code_of("nvmlDeviceGetUUID", second) == 0
    assert pynvml.nvmlDeviceGetCount() == 2
    rack.recover(0)
    assert rack.card(0).locked_sm_mhz == (900, 900)
    assert code_of("nvmlDeviceGetUUID", first) == 0


def test_versions_of_a_name_mean_the_same_function(rack: Rack) -> None:
    rack.fail("nvmlDeviceGetCount_v2", 9, times=1)
    rack.fail("nvmlInitWithFlags", 18, times=1)
    assert code_of("nvmlDeviceGetCount") == 9
    assert code_of("nvmlInit") == 18
    assert rack.calls("nvmlDeviceGetCount") == rack.calls("nvmlDeviceGetCount_v2") == 1


def test_an_init_that_failed_leaves_nothing_open(rack: Rack) -> None:
    pynvml.nvmlShutdown()
    rack.fail("nvmlInit", 9, times=1)
    assert code_of("nvmlInit") == 9
    assert code_of("nvmlDeviceGetCount") == 1


def test_a_function_that_does_not_exist_cannot_be_scripted(rack: Rack) -> None:
    with pytest.raises(ValueError, match="no function 'nvmlDeviceGetTeapot'"):
        rack.fail("nvmlDeviceGetTeapot", 1)


def test_there_is_room_for_many_scripts_but_not_for_any_number(rack: Rack) -> None:
    for _ in range(128):
        rack.fail(CLOCK, 10)
    with pytest.raises(RackError, match="clear_failures"):
        rack.fail(CLOCK, 10)
    rack.clear_failures()
    rack.fail(CLOCK, 10)


def test_a_card_that_is_none_is_refused(rack: Rack) -> None:
    with pytest.raises(IndexError, match="no card 1; the rack holds 1"):
        rack.lose(1)
