from __future__ import annotations

import pynvml
import pytest

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.failures import KNOWN_CODES, NvmlFailure, Remedy, name_of, remedy_for

PASSES = {10: "TIMEOUT", 19: "IN_USE", 27: "NOT_READY"}
GONE = {15: "GPU_IS_LOST", 16: "RESET_REQUIRED"}
NO_NVML = {
    1: "UNINITIALIZED",
    9: "DRIVER_NOT_LOADED",
    12: "LIBRARY_NOT_FOUND",
    18: "LIB_RM_VERSION_MISMATCH",
    28: "GPU_NOT_FOUND",
}


@pytest.mark.parametrize("code", KNOWN_CODES)
def test_every_code_has_the_name_that_nvidia_gives_it(code: int) -> None:
    assert getattr(pynvml, f"NVML_ERROR_{name_of(code)}") == code


def test_every_code_of_nvidia_is_known() -> None:
    codes = {value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    assert codes == set(KNOWN_CODES)


@pytest.mark.parametrize("code", KNOWN_CODES)
def test_remedies(code: int) -> None:
    if code in PASSES:
        expected = Remedy.RETRY
    elif code in GONE:
        expected = Remedy.STOP
    elif code in NO_NVML:
        expected = Remedy.ABSENT
    else:
        expected = Remedy.OBSERVE
    assert remedy_for(code) is expected


def test_an_unknown_code_costs_its_function_only() -> None:
    assert remedy_for(4711) is Remedy.OBSERVE
    assert name_of(4711) == "CODE_4711"


@pytest.mark.parametrize("code", KNOWN_CODES)
def test_a_failure_says_what_was_asked_what_nvml_said_and_what_to_do(code: int) -> None:
    failure = NvmlFailure("its name (GPU-1)", function="nvmlDeviceGetName", code=code)
    assert isinstance(failure, DeviceError)
    asked, answer = str(failure).split(": NVML says ")
    assert asked == "its name (GPU-1)"
    said, advice = answer.split("; ", 1)
    assert said == f"{failure.code_name} ({code})"
    assert len(advice) > 10
    assert (failure.function, failure.code, failure.remedy) == ("nvmlDeviceGetName", code, remedy_for(code))
    assert failure.gone == (code in GONE or code in NO_NVML)
