"""What NVML's return codes mean to us: try again, do without, stop acting, or no NVML at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from optimizer.devices.gpu import DeviceError


class Remedy(Enum):
    """What a caller does about a failed call."""

    RETRY = "retry"  # passes by itself; `library` tries again a few times before anybody sees it
    OBSERVE = "observe"  # this function cannot be had: do without it
    STOP = "stop"  # the GPU is gone or needs a reset: set nothing any more, serve on
    ABSENT = "absent"  # no NVML at all


@dataclass(frozen=True, slots=True)
class _Code:
    name: str
    remedy: Remedy
    advice: str


_REPORT = "run `nvidia-smi` and look at `dmesg` for NVRM lines"
_CODES = {
    1: _Code("UNINITIALIZED", Remedy.ABSENT, "NVML has to be opened before it is asked"),
    2: _Code("INVALID_ARGUMENT", Remedy.OBSERVE, "`boulton doctor` lists what this GPU accepts"),
    3: _Code("NOT_SUPPORTED", Remedy.OBSERVE, "this GPU or its driver does not offer it"),
    4: _Code("NO_PERMISSION", Remedy.OBSERVE, "only root may do this: let `boulton keeper` run as root"),
    5: _Code("ALREADY_INITIALIZED", Remedy.OBSERVE, "NVML was opened already"),
    6: _Code("NOT_FOUND", Remedy.OBSERVE, "there is no such GPU: `boulton doctor` lists those there are"),
    7: _Code("INSUFFICIENT_SIZE", Remedy.OBSERVE, "the answer grew while it was read; the next call may do"),
    8: _Code("INSUFFICIENT_POWER", Remedy.OBSERVE, "check the GPU's power cables"),
    9: _Code("DRIVER_NOT_LOADED", Remedy.ABSENT, "load the NVIDIA driver: `modprobe nvidia`"),
    10: _Code("TIMEOUT", Remedy.RETRY, "the driver was too busy to answer"),
    11: _Code("IRQ_ISSUE", Remedy.OBSERVE, _REPORT),
    12: _Code(
        "LIBRARY_NOT_FOUND",
        Remedy.ABSENT,
        "libnvidia-ml.so.1 was not found: install the NVIDIA driver; in a container, use the NVIDIA Container"
        " Toolkit with the capability `utility`",
    ),
    13: _Code("FUNCTION_NOT_FOUND", Remedy.OBSERVE, "the installed driver has no such function"),
    14: _Code("CORRUPTED_INFOROM", Remedy.OBSERVE, _REPORT),
    15: _Code("GPU_IS_LOST", Remedy.STOP, f"the GPU no longer answers: {_REPORT}, then restart the machine"),
    16: _Code("RESET_REQUIRED", Remedy.STOP, "the GPU needs a reset: `nvidia-smi --gpu-reset`, or a restart"),
    17: _Code("OPERATING_SYSTEM", Remedy.OBSERVE, "the operating system or the container forbids it"),
    18: _Code(
        "LIB_RM_VERSION_MISMATCH",
        Remedy.ABSENT,
        "library and kernel module are of different versions, as after an update of the driver: restart",
    ),
    19: _Code("IN_USE", Remedy.RETRY, "somebody else is using the GPU or the setting"),
    20: _Code("MEMORY", Remedy.OBSERVE, "NVML ran out of memory"),
    21: _Code("NO_DATA", Remedy.OBSERVE, "the GPU has no figure yet"),
    22: _Code("VGPU_ECC_NOT_SUPPORTED", Remedy.OBSERVE, "a virtual GPU does not offer it"),
    23: _Code("INSUFFICIENT_RESOURCES", Remedy.OBSERVE, "the GPU has too little left for it"),
    24: _Code("FREQ_NOT_SUPPORTED", Remedy.OBSERVE, "`boulton doctor` lists the clocks of this GPU"),
    25: _Code("ARGUMENT_VERSION_MISMATCH", Remedy.OBSERVE, "nvidia-ml-py and the driver do not fit together"),
    26: _Code("DEPRECATED", Remedy.OBSERVE, "the installed driver has given this function up"),
    27: _Code("NOT_READY", Remedy.RETRY, "the GPU was not ready to answer"),
    28: _Code("GPU_NOT_FOUND", Remedy.ABSENT, "the driver sees no NVIDIA GPU"),
    29: _Code("INVALID_STATE", Remedy.OBSERVE, "the GPU's present state does not allow it"),
    30: _Code("RESET_TYPE_NOT_SUPPORTED", Remedy.OBSERVE, "the GPU cannot be reset in this way"),
    999: _Code("UNKNOWN", Remedy.OBSERVE, _REPORT),
}
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
FUNCTION_NOT_FOUND = 13
DEPRECATED = 26
UNKNOWN = 999
_LASTING = (NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, DEPRECATED)
KNOWN_CODES = tuple(_CODES)


def remedy_for(code: int) -> Remedy:
    """Return what to do about a return code of NVML; a code that we do not know costs its function only."""
    return _code(code).remedy


def name_of(code: int) -> str:
    """Return NVML's name of a return code without `NVML_ERROR_`, e.g. `NO_PERMISSION`."""
    return _code(code).name


class NvmlFailure(DeviceError):
    """A call of NVML that failed, after retries where its code promises that they may help.

    Args:
        asked: what was asked of which GPU, in words for a person.
        function: NVML's name of the function.
        code: what it returned.

    `lasting` tells that it will fail again as long as card, driver and user are the same.
    """

    def __init__(self, asked: str, *, function: str, code: int) -> None:
        meaning = _code(code)
        super().__init__(f"{asked}: NVML says {meaning.name} ({code}); {meaning.advice}")
        self.function = function
        self.code = code
        self.code_name = meaning.name
        self.remedy = meaning.remedy
        self.lasting = code in _LASTING

    @property
    def gone(self) -> bool:
        """Whether the GPU, or all of NVML, is out of reach: no other call will do better."""
        return self.remedy in (Remedy.STOP, Remedy.ABSENT)

    @property
    def absent(self) -> bool:
        """Whether there is no NVML at the moment: opened anew, it may answer again."""
        return self.remedy is Remedy.ABSENT


def _code(code: int) -> _Code:
    return _CODES.get(code) or _Code(f"CODE_{code}", Remedy.OBSERVE, _REPORT)
