from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest
from nvml_rack import OpenRack, make_card, make_rack, rack_env

SETTERS = {
    "nvmlDeviceSetGpuLockedClocks": (900, 900),
    "nvmlDeviceResetGpuLockedClocks": (),
    "nvmlDeviceSetMemoryLockedClocks": (1215, 1215),
    "nvmlDeviceResetMemoryLockedClocks": (),
    "nvmlDeviceSetApplicationsClocks": (1215, 900),
    "nvmlDeviceResetApplicationsClocks": (),
    "nvmlDeviceSetPowerManagementLimit": (200_000,),
}
NOBODY = 65534


@pytest.mark.parametrize(("function", "arguments"), SETTERS.items())
def test_only_the_privileged_user_sets(
    open_rack: OpenRack, function: str, arguments: tuple[int, ...]
) -> None:
    rack = open_rack(privileged_uid=os.geteuid() + 1)
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        getattr(pynvml, function)(card, *arguments)
    assert rack.card().is_default
    assert rack.set_history()[0].code == pynvml.NVML_ERROR_NO_PERMISSION


def test_everybody_reads(open_rack: OpenRack) -> None:
    open_rack(privileged_uid=os.geteuid() + 1)
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetPowerUsage(card) == 32_000
    assert pynvml.nvmlDeviceGetAPIRestriction(card, pynvml.NVML_RESTRICTED_API_SET_APPLICATION_CLOCKS) == 1


def test_application_clocks_can_be_open_to_everybody(open_rack: OpenRack) -> None:
    rack = open_rack(make_card("pascal", open_application_clocks=True), privileged_uid=os.geteuid() + 1)
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetAPIRestriction(card, pynvml.NVML_RESTRICTED_API_SET_APPLICATION_CLOCKS) == 0
    pynvml.nvmlDeviceSetApplicationsClocks(card, 715, 544)
    assert rack.card().application_clocks_mhz == (715, 544)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        pynvml.nvmlDeviceSetPowerManagementLimit(card, 200_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_reads_and_does_not_set(tmp_path: Path) -> None:
    # The child drops its rights itself: the interpreter may lie where only root gets.
    program = f"""
import os, pynvml
pynvml.nvmlInit()
os.setuid({NOBODY})
card = pynvml.nvmlDeviceGetHandleByIndex(0)
print(pynvml.nvmlDeviceGetPowerUsage(card))
try:
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
except pynvml.NVMLError as error:
    print(error.value)
"""
    with make_rack(tmp_path) as rack:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=rack_env(rack), capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["32000", "4"]
        assert rack.card().is_default
        assert [(entry.uid, entry.code) for entry in rack.set_history()] == [(NOBODY, 4)]
