"""NVML as typed Python: the only module that knows nvidia-ml-py.

Watts, joules, megahertz and degrees Celsius out; `NvmlFailure` for whatever NVML refuses. Besides it only the
standard library is loaded: the keeper, which runs as root, uses this module too.

Functions of NVML may be called from several threads at once, and so may everything here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock, RLock
from types import TracebackType
from typing import Any

import pynvml

from optimizer.devices.nvml.failures import (
    DEPRECATED,
    FUNCTION_NOT_FOUND,
    NOT_SUPPORTED,
    UNKNOWN,
    NvmlFailure,
    Remedy,
    name_of,
    remedy_for,
)
from optimizer.telemetry import EventReason

logger = logging.getLogger("boulton.gpu")

# Together below a tenth of a second: whoever reads the GPU every second is not held up by much.
_RETRY_PAUSES_S = (0.005, 0.02, 0.05)
_KNOWN_REASONS = sum(EventReason)
_STANDIN_SYMBOL = "standinRunBatch"


class PowerField(StrEnum):
    """Where a power reading comes from: NVML's fields 185 and 186, or nvmlDeviceGetPowerUsage."""

    AVERAGE = "average"
    INSTANT = "instant"
    USAGE = "usage"


@dataclass(frozen=True, slots=True)
class PowerReading:
    """The power that the board draws, in watts, which field said so, and why none before it did."""

    watts: float
    field: PowerField
    why_not: str = ""


class Calls:
    """Calls functions of NVML by name: retries what passes by itself, counts and translates what fails."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._failures: Counter[tuple[str, str]] = Counter()
        self._lock = RLock()  # a signal handler may come in between

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How often each function failed with each code so far, retried calls included; a copy."""
        with self._lock:
            return self._failures.copy()

    def __call__(self, function: str, *arguments: Any, asked: str) -> Any:  # noqa: ANN401 - as pynvml answers
        """Return what NVML answers; raises NvmlFailure. `asked` says it in words."""
        for pause_s in (*_RETRY_PAUSES_S, None):
            code, answer = self._once(function, arguments)
            if code == 0:
                return answer
            if pause_s is None or remedy_for(code) is not Remedy.RETRY:
                break
            self._sleep(pause_s)
        raise NvmlFailure(f"{function}: {asked}", function=function, code=code)

    def _once(self, function: str, arguments: Sequence[Any]) -> tuple[int, Any]:
        try:
            return 0, getattr(pynvml, function, _missing)(*arguments)
        except pynvml.NVMLError as error:
            code = int(error.value)
        except pynvml.NVMLLibraryMismatchError:  # what the bindings make of it for some functions
            code = FUNCTION_NOT_FOUND
        except UnicodeDecodeError:  # a name that is no text
            code = UNKNOWN
        self.count(function, code)
        return code, None

    def count(self, function: str, code: int) -> None:
        """Count a failure."""
        with self._lock:
            self._failures[function, name_of(code)] += 1


class Nvml:
    """The library, opened and closed; a context manager. Opening loads `libnvidia-ml.so.1`.

    Args:
        sleep: waits between retries.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._call = Calls(sleep)
        self._open = False
        self._reopening = Lock()

    def __enter__(self) -> Nvml:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How often each function failed with each code (`NO_PERMISSION`), of the cards' calls as well."""
        return self._call.failures

    def open(self) -> None:
        """Load and initialise NVML; raises NvmlFailure, by which there is none. Once is enough."""
        if not self._open:
            self._call("nvmlInit", asked="open NVML")
            self._open = True

    def close(self) -> None:
        """Shut NVML down; never raises, and what fails is said. Cards are of no use afterwards."""
        try:
            self._shut_down()
        except NvmlFailure as failure:
            logger.warning("%s", failure)

    def reopen(self) -> None:
        """Open NVML anew if it does not answer, as after a reload of the driver; raises NvmlFailure.

        Several threads may find that it does not answer: the first opens it for all.
        """
        with self._reopening:
            try:
                self.count()
            except NvmlFailure:
                with suppress(NvmlFailure):  # that it does not answer is why it is opened anew
                    self._shut_down()
                self.open()

    def _shut_down(self) -> None:
        if self._open:
            self._open = False
            self._call("nvmlShutdown", asked="close NVML")

    @property
    def simulated(self) -> bool:
        """Whether the library that was opened is our stand-in, whose GPUs exist in software only."""
        return self._open and hasattr(pynvml.nvmlLib, _STANDIN_SYMBOL)

    def driver_version(self) -> str:
        """Return the driver's version, e.g. `580.82.07`."""
        return str(self._call("nvmlSystemGetDriverVersion", asked="the driver's version"))

    def count(self) -> int:
        """Return how many GPUs there are; indices run below it, in the order of the PCI bus."""
        return int(self._call("nvmlDeviceGetCount", asked="the number of GPUs"))

    def card_at(self, index: int) -> Card:
        """Return a GPU by NVML's index."""
        handle = self._call("nvmlDeviceGetHandleByIndex", index, asked=f"the GPU of index {index}")
        uuid = self._call("nvmlDeviceGetUUID", handle, asked=f"the UUID of GPU {index}")
        return Card(str(uuid), handle, self._call)

    def card(self, uuid: str) -> Card:
        """Return a GPU by its whole UUID."""
        return Card(uuid, self._handle(uuid), self._call)

    def find_again(self, card: Card) -> None:
        """Make a card usable after NVML was opened anew; raises NvmlFailure when it is not there."""
        card.renew(self._handle(card.uuid))

    def _handle(self, uuid: str) -> object:
        handle: object = self._call("nvmlDeviceGetHandleByUUID", uuid, asked=f"the GPU {uuid}")
        return handle


class Card:
    """One GPU. Every method asks NVML once and raises NvmlFailure; nothing is remembered between calls.

    Setters need root and stay in force after the process: whoever uses them gives the setting back.
    Comes from `Nvml`, not from here.
    """

    def __init__(self, uuid: str, handle: object, call: Calls) -> None:
        self.uuid = uuid
        self._handle = handle
        self._call = call

    def renew(self, handle: object) -> None:
        """Take another handle, as NVML gives one to the same GPU each time that it is opened."""
        self._handle = handle

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How often each function failed with each code, of everything opened by the same `Nvml`."""
        return self._call.failures

    def name(self) -> str:
        """Return what NVIDIA calls it, e.g. `Tesla V100-PCIE-32GB`."""
        return str(self._ask("nvmlDeviceGetName", asked="its name"))

    def index(self) -> int:
        """Return NVML's index, which may change when the machine restarts."""
        return int(self._ask("nvmlDeviceGetIndex", asked="its index"))

    def architecture(self) -> int:
        """Return NVML's number of its architecture: 4 Pascal, 5 Volta, 7 Ampere, 9 Hopper."""
        return int(self._ask("nvmlDeviceGetArchitecture", asked="its architecture"))

    def sm_clock_mhz(self) -> int:
        """Return the SM clock in force."""
        return self._clock_mhz(pynvml.NVML_CLOCK_SM, "the SM clock in force")

    def memory_clock_mhz(self) -> int:
        """Return the memory clock in force."""
        return self._clock_mhz(pynvml.NVML_CLOCK_MEM, "the memory clock in force")

    def supported_memory_clocks_mhz(self) -> tuple[int, ...]:
        """Return the legal memory clocks, ascending."""
        return _ascending(self._ask("nvmlDeviceGetSupportedMemoryClocks", asked="its memory clocks"))

    def supported_sm_clocks_mhz(self, memory_clock_mhz: int) -> tuple[int, ...]:
        """Return the legal SM clocks under a legal memory clock, ascending."""
        asked = f"its SM clocks at a memory clock of {memory_clock_mhz} MHz"
        return _ascending(self._ask("nvmlDeviceGetSupportedGraphicsClocks", memory_clock_mhz, asked=asked))

    def lock_sm_clock(self, clock_mhz: int) -> None:
        """Hold the SM clock at a value (Volta and newer). There is no way to read a lock back."""
        asked = f"lock the SM clock at {clock_mhz} MHz"
        self._ask("nvmlDeviceSetGpuLockedClocks", clock_mhz, clock_mhz, asked=asked)

    def unlock_sm_clock(self) -> None:
        """Let the driver choose the SM clock again."""
        self._ask("nvmlDeviceResetGpuLockedClocks", asked="give the SM clock back")

    def lock_memory_clock(self, clock_mhz: int) -> None:
        """Hold the memory clock at a value (Ampere and newer)."""
        asked = f"lock the memory clock at {clock_mhz} MHz"
        self._ask("nvmlDeviceSetMemoryLockedClocks", clock_mhz, clock_mhz, asked=asked)

    def unlock_memory_clock(self) -> None:
        """Let the driver choose the memory clock again."""
        self._ask("nvmlDeviceResetMemoryLockedClocks", asked="give the memory clock back")

    def set_application_clocks(self, memory_clock_mhz: int, sm_clock_mhz: int) -> None:
        """Set the clocks that applications run at (Maxwell and Pascal; gone in newer drivers)."""
        asked = f"set application clocks of {memory_clock_mhz} MHz memory and {sm_clock_mhz} MHz SM"
        self._ask("nvmlDeviceSetApplicationsClocks", memory_clock_mhz, sm_clock_mhz, asked=asked)

    def reset_application_clocks(self) -> None:
        """Set the application clocks back to the card's default."""
        self._ask("nvmlDeviceResetApplicationsClocks", asked="give the application clocks back")

    def application_clocks_mhz(self) -> tuple[int, int]:
        """Return the application clocks in force: SM, memory."""
        return self._pair("nvmlDeviceGetApplicationsClock", "the application clocks")

    def default_application_clocks_mhz(self) -> tuple[int, int]:
        """Return the application clocks that the card comes with: SM, memory."""
        return self._pair("nvmlDeviceGetDefaultApplicationsClock", "the default application clocks")

    def power_limit_w(self) -> float:
        """Return the power limit that is set."""
        return _thousandth(self._ask("nvmlDeviceGetPowerManagementLimit", asked="its power limit"))

    def default_power_limit_w(self) -> float:
        """Return the power limit that the card comes with."""
        asked = "its default power limit"
        return _thousandth(self._ask("nvmlDeviceGetPowerManagementDefaultLimit", asked=asked))

    def power_limit_range_w(self) -> tuple[float, float]:
        """Return the lowest and the highest power limit that may be set."""
        low, high = self._ask("nvmlDeviceGetPowerManagementLimitConstraints", asked="its power limits")
        return _thousandth(low), _thousandth(high)

    def set_power_limit_w(self, limit_w: float) -> None:
        """Set the power limit, to the milliwatt."""
        asked = f"set a power limit of {limit_w:g} W"
        self._ask("nvmlDeviceSetPowerManagementLimit", round(limit_w * 1000), asked=asked)

    def energy_j(self) -> float:
        """Return the energy used since the driver was loaded (Volta and newer), 20 to 100 ms old."""
        return _thousandth(self._ask("nvmlDeviceGetTotalEnergyConsumption", asked="its energy counter"))

    def power_w(self) -> PowerReading:
        """Return the power now: field 185, else field 186, else nvmlDeviceGetPowerUsage.

        NVML answers a request for fields as long as it fills any of them, so each has a code of its own.
        """
        try:
            found = self._fields((pynvml.NVML_FI_DEV_POWER_AVERAGE, pynvml.NVML_FI_DEV_POWER_INSTANT))
        except NvmlFailure as failure:
            if failure.gone:
                raise
            found = failure, failure
        why_not = str(found[0]) if isinstance(found[0], NvmlFailure) else ""
        for milliwatts, field in zip(found, (PowerField.AVERAGE, PowerField.INSTANT), strict=True):
            if not isinstance(milliwatts, NvmlFailure):
                return PowerReading(_thousandth(milliwatts), field, why_not)
        return PowerReading(self.power_usage_w(), PowerField.USAGE, why_not)

    def power_usage_w(self) -> float:
        """Return what nvmlDeviceGetPowerUsage says: all that there is before the fields 185 and 186."""
        return _thousandth(self._ask("nvmlDeviceGetPowerUsage", asked="its power"))

    def use(self) -> float:
        """Return the share of NVML's last sample period (1/6 s to 1 s) in which the GPU computed, 0 to 1."""
        return float(self._ask("nvmlDeviceGetUtilizationRates", asked="how busy it is").gpu) / 100.0

    def event_reasons(self) -> EventReason:
        """Return why the GPU is not at its clock; bits that we have no name for are left out."""
        asked = "why it is not at its clock"
        try:
            bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", asked=asked)
        except NvmlFailure as failure:
            if failure.code != FUNCTION_NOT_FOUND:
                raise
            # The same under the name that it had before CUDA 12.2.
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", asked=asked)
        return EventReason(int(bits) & _KNOWN_REASONS)

    def temperature_c(self) -> float:
        """Return the temperature of the GPU in degrees Celsius."""
        asked, sensor = "its temperature", pynvml.NVML_TEMPERATURE_GPU
        try:
            return float(self._ask("nvmlDeviceGetTemperature", sensor, asked=asked))
        except NvmlFailure as failure:
            if failure.code not in (FUNCTION_NOT_FOUND, DEPRECATED):
                raise
            return float(self._ask("nvmlDeviceGetTemperatureV", sensor, asked=asked))  # since CUDA 13

    def mig_enabled(self) -> bool:
        """Return whether the GPU is cut into MIG instances; a GPU that knows no MIG is not."""
        try:
            current, _pending = self._ask("nvmlDeviceGetMigMode", asked="its MIG mode")
        except NvmlFailure as failure:
            if failure.code in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
                return False
            raise
        return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)

    def memory_used_bytes(self) -> int:
        """Return how much of its memory is in use, by anybody."""
        return int(self._ask("nvmlDeviceGetMemoryInfo", asked="its memory").used)

    def processes(self) -> tuple[int, ...]:
        """Return the process ids that compute on the GPU, ascending; in a container they may be others'."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", asked="the processes on it")
        return tuple(sorted({int(process.pid) for process in found}))

    def persistence(self) -> bool:
        """Return whether the driver stays loaded while nobody uses the GPU."""
        return bool(self._ask("nvmlDeviceGetPersistenceMode", asked="its persistence mode"))

    def _ask(self, function: str, *arguments: object, asked: str) -> Any:  # noqa: ANN401 - as pynvml answers
        return self._call(function, self._handle, *arguments, asked=f"{asked} ({self.uuid})")

    def _clock_mhz(self, kind: int, asked: str) -> int:
        return int(self._ask("nvmlDeviceGetClockInfo", kind, asked=asked))

    def _pair(self, function: str, asked: str) -> tuple[int, int]:
        sm_mhz = self._ask(function, pynvml.NVML_CLOCK_GRAPHICS, asked=asked)
        memory_mhz = self._ask(function, pynvml.NVML_CLOCK_MEM, asked=asked)
        return int(sm_mhz), int(memory_mhz)

    def _fields(self, ids: Sequence[int]) -> tuple[int | NvmlFailure, ...]:
        """The values of fields, or why one cannot be had; raises when the GPU is gone."""
        values = self._ask("nvmlDeviceGetFieldValues", list(ids), asked=f"the fields {list(ids)}")
        found = tuple(map(self._field, ids, values))
        for value in found:
            if isinstance(value, NvmlFailure) and value.gone:
                raise value
        return found

    def _field(self, number: int, value: Any) -> int | NvmlFailure:  # noqa: ANN401 - as pynvml answers
        if not value.nvmlReturn:
            return int(value.value.uiVal)
        function, asked = "nvmlDeviceGetFieldValues", f"the field {number} ({self.uuid})"
        self._call.count(function, value.nvmlReturn)
        return NvmlFailure(f"{function}: {asked}", function=function, code=value.nvmlReturn)


def _missing(*_arguments: object) -> None:
    """Stands for a function that the installed nvidia-ml-py does not have."""
    raise pynvml.NVMLError(FUNCTION_NOT_FOUND)


def _ascending(clocks_mhz: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({int(clock_mhz) for clock_mhz in clocks_mhz}))


def _thousandth(thousandths: int) -> float:
    return int(thousandths) / 1000.0
