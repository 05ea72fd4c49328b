"""What is promised when a function of NVML fails: how control stands then, and what is said of it.

One state for each case, not a choice: a daemon that degrades further than it must breaks a promise as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from optimizer.devices.nvml.failures import (
    DEPRECATED,
    FUNCTION_NOT_FOUND,
    NOT_SUPPORTED,
    Remedy,
    name_of,
    remedy_for,
)
from server.devices.served import ControlState

ON, LOST = ControlState.ON, ControlState.LOST
REFUSED, UNAVAILABLE = ControlState.REFUSED, ControlState.UNAVAILABLE

SETTERS = (
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceSetMemoryLockedClocks",
    "nvmlDeviceSetApplicationsClocks",
    "nvmlDeviceSetPowerManagementLimit",
)
SETS_CLOCKS = SETTERS[:3]
"""What nobody calls to give a card back that had its default clocks."""
SHUTDOWN = "nvmlShutdown"
_OPENS = ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID")
# What the daemon asks before it sets anything, and what the keeper does.
_MAY_SET = ("nvmlDeviceGetMigMode",)
_POWER_LIMIT = ("nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetPowerManagementLimitConstraints")
_KEEPER_INSPECTS = (
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetSupportedGraphicsClocks",
)
_APPLICATION_CLOCKS = "nvmlDeviceGetApplicationsClock"
_ASKED_FOR_THE_LOG = "nvmlDeviceGetComputeRunningProcesses"
_LACKING = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)
# Where another way leads to the same, nothing is lost, and nothing need be said.
_OTHER_WAY = {
    "nvmlDeviceGetMigMode": _LACKING,
    "nvmlDeviceSetGpuLockedClocks": _LACKING,
    "nvmlDeviceSetMemoryLockedClocks": _LACKING,
    "nvmlDeviceGetCurrentClocksEventReasons": (FUNCTION_NOT_FOUND,),
    "nvmlDeviceGetTemperature": (FUNCTION_NOT_FOUND, DEPRECATED),
}
_SPARE_FIELD = "field:186"


class Phase(StrEnum):
    """From when on a function fails."""

    START = "from the start"
    WORK = "at work"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: one function fails with one code on one kind of card."""

    kind: str
    function: str
    code: int
    phase: Phase

    @property
    def remedy(self) -> Remedy:
        """What NVML's code asks for."""
        return remedy_for(self.code)

    @property
    def gone(self) -> bool:
        """Whether the code says that the GPU, or NVML, is gone."""
        return self.remedy in (Remedy.STOP, Remedy.ABSENT)

    @property
    def called(self) -> str:
        """The function as NVML has it; a field is a value of another function."""
        return "nvmlDeviceGetFieldValues" if self.function.startswith("field:") else self.function


def starts(trial: Trial) -> bool:
    """Whether the daemon is to start: without the GPU that it was told to govern it is not."""
    return trial.phase is not Phase.START or trial.function not in _OPENS


def keeper_starts(trial: Trial) -> bool:
    """Whether the keeper is to start: it listens as soon as there is NVML, and looks for GPUs later."""
    return trial.phase is not Phase.START or trial.function != _OPENS[0]


def state_promised(trial: Trial, calls: int) -> ControlState:
    """How control is to stand when the function was called so often since it fails."""
    if not calls or trial.function == _ASKED_FOR_THE_LOG or harmless(trial):
        return ON
    if trial.function in SETTERS:
        return LOST if trial.remedy is Remedy.STOP else REFUSED
    if trial.function in _KEEPER_INSPECTS:
        return _unless_lost(trial, UNAVAILABLE if trial.phase is Phase.START else REFUSED)
    if trial.function == _APPLICATION_CLOCKS:
        return _without_application_clocks(trial)
    if trial.gone:
        return LOST
    asked_first = trial.function in _MAY_SET or (
        trial.function in _POWER_LIMIT and trial.remedy is Remedy.RETRY and trial.phase is Phase.START
    )
    return UNAVAILABLE if asked_first else ON


def harmless(trial: Trial) -> bool:
    """Whether another way leads to the same, so that nothing need be said."""
    if trial.function == _SPARE_FIELD:
        return not trial.gone
    if trial.function == _APPLICATION_CLOCKS:
        return trial.kind != "pascal" and trial.remedy is Remedy.OBSERVE
    return trial.code in _OTHER_WAY.get(trial.function, ())


def _unless_lost(trial: Trial, state: ControlState) -> ControlState:
    """The keeper alone asks: that it has no NVML says nothing of the daemon's."""
    return LOST if trial.remedy is Remedy.STOP else state


def _without_application_clocks(trial: Trial) -> ControlState:
    """With a fixed memory clock only the keeper reads them; else the daemon does first."""
    asked_by_keeper = trial.kind == "hopper"
    return _unless_lost(trial, REFUSED) if asked_by_keeper or not trial.gone else LOST


def metric_problems(trial: Trial, *, counted: bool, state: str) -> Iterator[str]:
    """A failure that was met while serving shows in the metrics: counted, or by how control stands."""
    if not counted and state == ON and not harmless(trial):
        yield f"no metric tells of {trial.function}"


class Lines:
    """Those lines of a log that name one failure."""

    def __init__(self, trial: Trial) -> None:
        self._says = f"NVML says {name_of(trial.code)} ("
        self._function = f"{trial.called}"

    def of(self, text: str) -> list[str]:
        """Return them."""
        return [line for line in text.splitlines() if self._says in line and self._function in line]


def daemon_problems(serving: Sequence[str], ending: Sequence[str]) -> Iterator[str]:
    """One line while it serves; at the end one more at most: that the card was not given back."""
    if len(serving) > 1:
        yield f"the daemon says it {len(serving)} times: {' / '.join(serving)}"
    if len(ending) > 1:
        yield f"the daemon says it {len(ending)} times at its end: {' / '.join(ending)}"


def silence_problems(trial: Trial, calls: int, lines: Sequence[str]) -> Iterator[str]:
    """What was met has to be said by somebody."""
    if calls and not lines and not harmless(trial):
        yield f"nobody says that {trial.function} failed with {name_of(trial.code)}"


def keeper_problems(lines: Sequence[str]) -> Iterator[str]:
    """One line for each consequence: found at its start, a client refused, a card not given back."""
    for consequence, times in Counter(map(_consequence, lines)).items():
        if times > 1:
            yield f"the keeper says {times} times: {consequence}: {' / '.join(lines)}"


def _consequence(line: str) -> str:
    if re.search(r" keeper: refused ", line):
        return "a client is refused"
    return "a card is not given back" if "cannot give the GPU back" in line else "found"
