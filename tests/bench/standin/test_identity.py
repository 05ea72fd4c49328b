from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest
from nvml_rack import OpenRack, make_card, make_rack, nvml_here, rack_env

from bench.standin.control import ENVIRONMENT, Rack
from bench.standin.library import RackError


def test_cards_are_found_by_index_uuid_and_bus(open_rack: OpenRack) -> None:
    rack = open_rack(make_card("volta"), make_card("pascal", 1), make_card("hopper", 2))
    assert pynvml.nvmlDeviceGetCount() == 3
    for index in range(3):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        assert pynvml.nvmlDeviceGetUUID(handle) == rack.uuid(index)
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(rack.uuid(index))) == index
        bus = pynvml.nvmlDeviceGetPciInfo(handle).busId
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(bus)) == index


def test_a_card_tells_what_it_is_and_that_it_stands_in(open_rack: OpenRack) -> None:
    open_rack(make_card("hopper"))
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetName(card) == "Stand-in H100 NVL"
    assert pynvml.nvmlDeviceGetArchitecture(card) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetCudaComputeCapability(card) == (9, 0)
    assert pynvml.nvmlDeviceGetPersistenceMode(card) == 1
    assert pynvml.nvmlDeviceGetPerformanceState(card) == 8
    assert pynvml.nvmlDeviceGetMemoryInfo(card).total == 1 << 35
    assert "standin" in pynvml.nvmlSystemGetDriverVersion()
    assert "standin" in pynvml.nvmlSystemGetNVMLVersion()
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda: pynvml.nvmlDeviceGetHandleByIndex(1), pynvml.NVML_ERROR_INVALID_ARGUMENT),
        (lambda: pynvml.nvmlDeviceGetHandleByUUID("GPU-no"), pynvml.NVML_ERROR_NOT_FOUND),
        (lambda: pynvml.nvmlDeviceGetName(None), pynvml.NVML_ERROR_INVALID_ARGUMENT),
        (lambda: pynvml.nvmlDeviceGetClockInfo(_first(), 99), pynvml.NVML_ERROR_INVALID_ARGUMENT),
        (lambda: pynvml.nvmlDeviceGetFanSpeed(_first()), pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
    ],
)
def test_what_does_not_exist_is_refused(open_rack: OpenRack, ask: Callable[[], object], code: int) -> None:
    open_rack()
    with pytest.raises(pynvml.NVMLError) as caught:
        ask()
    assert caught.value.value == code


def _first() -> object:
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def test_nothing_is_answered_before_init_nor_after_the_last_shutdown(tmp_path: Path) -> None:
    with make_rack(tmp_path) as rack, nvml_here(rack):
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()
        pynvml.nvmlInit()
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
        assert pynvml.nvmlDeviceGetCount() == 1
        pynvml.nvmlShutdown()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_without_a_rack_there_is_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    with make_rack(tmp_path) as rack, nvml_here(rack):
        other = tmp_path / "other"
        if content is not None:
            other.write_bytes(content)
        monkeypatch.setenv(ENVIRONMENT, str(other))
        with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
            pynvml.nvmlInit()


def test_another_process_finds_it_by_the_environment_alone(tmp_path: Path) -> None:
    program = "import pynvml as p; p.nvmlInit(); print(p.nvmlDeviceGetUUID(p.nvmlDeviceGetHandleByIndex(0)))"
    with make_rack(tmp_path) as rack:
        done = subprocess.run(
            [sys.executable, "-c", program], env=rack_env(rack), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == rack.uuid(0)


def test_a_rack_can_be_opened_by_others_and_not_made_twice(tmp_path: Path) -> None:
    with make_rack(tmp_path, make_card("volta")) as rack:
        with Rack.open(rack.path, rack.library_directory) as other:
            rack.lose()
            assert other.card().lost
        with pytest.raises(RackError, match="exists already"):
            Rack.create(rack.path, [make_card()], rack.library_directory)
        assert rack.path.stat().st_mode & 0o777 == 0o666


def test_a_closed_rack_says_so(tmp_path: Path) -> None:
    with make_rack(tmp_path) as rack:
        pass
    with pytest.raises(RackError, match="was closed"):
        rack.card()


@pytest.mark.parametrize("count", [0, 17])
def test_a_rack_holds_one_to_sixteen_cards(tmp_path: Path, count: int) -> None:
    with make_rack(tmp_path) as rack, pytest.raises(RackError, match=f"1 to 16 cards, got {count}"):
        Rack.create(tmp_path / "x", [make_card(number=n) for n in range(count)], rack.library_directory)


def test_mig_mode_is_known_to_the_cards_that_have_it(open_rack: OpenRack) -> None:
    rack = open_rack(make_card("ampere"), make_card("volta", 1))
    ampere, volta = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    assert pynvml.nvmlDeviceGetMigMode(ampere) == [0, 0]
    rack.set_mig(0, True)
    assert pynvml.nvmlDeviceGetMigMode(ampere) == [1, 1]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetMigMode(volta)


def test_processes_are_those_named_and_those_that_run_batches(
    open_rack: OpenRack, run_batch: Callable[..., None]
) -> None:
    rack = open_rack()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(card) == []
    rack.set_processes(0, [4242, 7])
    run_batch(card, 0.001)
    found = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]
    assert found == [4242, 7, os.getpid()]
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(card) == []
    assert pynvml.nvmlDeviceGetMPSComputeRunningProcesses(card) == []


def test_a_process_that_ran_batches_and_ended_is_listed_no_more(open_rack: OpenRack) -> None:
    rack = open_rack()
    program = (
        "import pynvml as p, ctypes; p.nvmlInit(); card = p.nvmlDeviceGetHandleByIndex(0);"
        "p.nvmlLib.standinRunBatch(card, ctypes.c_double(9.0), ctypes.c_double(1.0));"
        "print(len(p.nvmlDeviceGetComputeRunningProcesses(card)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=rack_env(rack), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0)) == []
