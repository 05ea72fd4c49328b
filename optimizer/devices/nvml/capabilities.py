"""What a GPU, its driver and this user can do, found out without setting anything.

NVML cannot be asked whether clocks can be locked: that is told by the architecture. Whether this process may
set anything is told by its rights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.clock_grid import span, working_memory_clock_mhz
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Card, PowerField
from optimizer.telemetry import EventReason

T = TypeVar("T")
VOLTA = 5
AMPERE = 7
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_SYS_ADMIN = 21  # the bit of CAP_SYS_ADMIN
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a GPU may offer.

    Args:
        name: what it is.
        available: whether it is there.
        detail: the figure that was read, or why there is none.
        remedy: what to do about a gap, and what is done without; empty when nothing is missing.
    """

    name: str
    available: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Everything that was found out about one GPU."""

    uuid: str
    items: tuple[Capability, ...]

    def __getitem__(self, name: str) -> Capability:
        return next(item for item in self.items if item.name == name)


@dataclass(frozen=True, slots=True)
class Rights:
    """Who this process is, as far as NVML asks.

    Args:
        pid: the process, which is not "another" one on the GPU.
        euid: its effective user id.
        sys_admin: whether it has CAP_SYS_ADMIN, which root in a container often lacks; None: not known.
    """

    pid: int
    euid: int
    sys_admin: bool | None


def own_rights(status: Path = _STATUS) -> Rights:
    """Return this process's rights, its capabilities from the kernel's status file."""
    return Rights(os.getpid(), os.geteuid(), _sys_admin(status))


def probe(card: Card, rights: Rights) -> Capabilities:
    """Find out what the GPU offers. Sets nothing, and never raises: what fails is a gap with its reason."""
    return Capabilities(card.uuid, tuple(_probe(card, rights)))


def _probe(card: Card, rights: Rights) -> Iterator[Capability]:
    architecture = _ask(card.architecture)
    yield _told("architecture", architecture, lambda number: _ARCHITECTURES.get(number, f"number {number}"))
    yield _energy(card)
    yield _power(card)
    yield _clocks(card)
    yield _event_reasons(card)
    yield _temperature(card)
    yield _legal_clocks(card)
    yield _locked_clocks(architecture)
    yield _application_clocks(card)
    yield _memory_clocks(card, architecture)
    yield _power_limit(card)
    yield _permission(rights)
    yield _mig(card)
    yield _other_processes(card, rights.pid)
    yield _persistence(card)


def _ask(question: Callable[[], T]) -> T | DeviceError:
    try:
        return question()
    except DeviceError as failure:
        return failure


def _told(name: str, answer: T | DeviceError, detail: Callable[[T], str], without: str = "") -> Capability:
    """A capability that is there when the GPU answers."""
    if isinstance(answer, DeviceError):
        return Capability(name, False, _short(answer), without or "figures of it stay empty")
    return Capability(name, True, detail(answer))


def _energy(card: Card) -> Capability:
    without = "energy is summed from power readings (source nvml-power), which is less exact"
    return _told("energy counter", _ask(card.energy_j), lambda j: f"{j:.0f} J since driver load", without)


def _power(card: Card) -> Capability:
    fields = {
        PowerField.AVERAGE: "average, field 185",
        PowerField.INSTANT: "instant, field 186",
        PowerField.USAGE: "nvmlDeviceGetPowerUsage",
    }
    detail = _ask(card.power_w)
    without = "without energy counter as well, energy is not measured and the governor goes by time alone"
    return _told("power", detail, lambda power: f"{power.watts:.1f} W ({fields[power.field]})", without)


def _clocks(card: Card) -> Capability:
    answer = _ask(lambda: (card.sm_clock_mhz(), card.memory_clock_mhz()))
    without = "whether a clock that was set is in force cannot be seen"
    return _told("clocks", answer, lambda mhz: f"SM {mhz[0]} MHz, memory {mhz[1]} MHz", without)


def _event_reasons(card: Card) -> Capability:
    without = "windows in which the GPU throttles cannot be told from others"
    return _told("event reasons", _ask(card.event_reasons), _reasons_text, without)


def _temperature(card: Card) -> Capability:
    return _told("temperature", _ask(card.temperature_c), lambda degrees: f"{degrees:.0f} °C")


def _legal_clocks(card: Card) -> Capability:
    def legal() -> tuple[int, tuple[int, ...]]:
        memory_mhz = working_memory_clock_mhz(card)
        return memory_mhz, card.supported_sm_clocks_mhz(memory_mhz)

    without = "the clock cannot be governed: the batch size alone is"
    return _told("legal SM clocks", _ask(legal), lambda it: f"{span(it[1])} (memory {it[0]} MHz)", without)


def _locked_clocks(architecture: int | DeviceError) -> Capability:
    name, without = "locked clocks", "application clocks are set instead, where the card has them"
    if isinstance(architecture, DeviceError):
        return Capability(name, False, "not known: the architecture is not", without)
    if architecture < VOLTA:
        return Capability(name, False, "came with Volta", without)
    return Capability(name, True, "by its architecture; NVML cannot be asked")


def _application_clocks(card: Card) -> Capability:
    answer = _ask(card.application_clocks_mhz)
    detail = "not offered; locked clocks are set instead, where the card has them"
    return _told("application clocks", answer, lambda mhz: f"SM {mhz[0]} MHz, memory {mhz[1]} MHz", detail)


def _memory_clocks(card: Card, architecture: int | DeviceError) -> Capability:
    name, clocks_mhz = "memory clocks", _ask(card.supported_memory_clocks_mhz)
    if isinstance(clocks_mhz, DeviceError):
        return Capability(name, False, _short(clocks_mhz), "the memory clock is left alone")
    listed = ", ".join(map(str, clocks_mhz)) + " MHz"
    if len(clocks_mhz) < 2:
        return Capability(name, False, f"{listed}: no choice", "the memory clock is left alone")
    if isinstance(architecture, int) and VOLTA <= architecture < AMPERE:
        return Capability(
            name, False, f"{listed}; locking came with Ampere", "the memory clock is left alone"
        )
    return Capability(name, True, listed)


def _power_limit(card: Card) -> Capability:
    def limits() -> tuple[float, float, float, float]:
        return card.power_limit_w(), card.default_power_limit_w(), *card.power_limit_range_w()

    def detail(watts: tuple[float, float, float, float]) -> str:
        return f"{watts[0]:g} W set, {watts[1]:g} W by default, {watts[2]:g} to {watts[3]:g} W allowed"

    return _told("power limit", _ask(limits), detail, "the power limit is left alone")


def _permission(rights: Rights) -> Capability:
    name, remedy = (
        "permission to set",
        "run `boulton keeper` as root on the host; the daemon needs no permission",
    )
    if rights.euid != 0:
        return Capability(name, False, f"user {rights.euid} may read only", remedy)
    if rights.sys_admin is False:
        return Capability(name, False, "root without CAP_SYS_ADMIN, as in a container", remedy)
    return Capability(name, True, "root")


def _mig(card: Card) -> Capability:
    name, enabled = "whole GPU (no MIG)", _ask(card.mig_enabled)
    if isinstance(enabled, DeviceError):
        return Capability(name, False, _short(enabled), "whether it is cut up is not known")
    if enabled:
        what = (
            "its instances share clock and energy, so neither is governed: `nvidia-smi -mig 0`, or batch only"
        )
        return Capability(name, False, "MIG is enabled", what)
    return Capability(name, True, "MIG is off")


def _other_processes(card: Card, own_pid: int) -> Capability:
    name, pids = "no other processes", _ask(card.processes)
    if isinstance(pids, DeviceError):
        return Capability(name, False, _short(pids), "whether others use the GPU is not known")
    others = [str(pid) for pid in pids if pid != own_pid]
    if others:
        remedy = "their energy is counted as yours, and your clock is theirs: stop them, or take another GPU"
        return Capability(name, False, f"computing on it: {', '.join(others)}", remedy)
    return Capability(name, True, "nobody else computes on it")


def _persistence(card: Card) -> Capability:
    name, enabled = "persistence mode", _ask(card.persistence)
    if isinstance(enabled, DeviceError):
        return Capability(name, False, _short(enabled), "whether the driver stays loaded is not known")
    if not enabled:
        remedy = "unused, the driver unloads and forgets settings: `nvidia-smi -pm 1`, or nvidia-persistenced"
        return Capability(name, False, "off", remedy)
    return Capability(name, True, "on")


def _reasons_text(reasons: EventReason) -> str:
    named = [reason.name for reason in EventReason if reason in reasons and reason.name]
    return ", ".join(named) or "none now"


def _short(failure: DeviceError) -> str:
    return failure.code_name if isinstance(failure, NvmlFailure) else str(failure)


def _sys_admin(status: Path) -> bool | None:
    try:
        lines = status.read_text().splitlines()
        effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
        return bool(int(effective, 16) >> _SYS_ADMIN & 1)
    except (OSError, StopIteration, ValueError, IndexError):
        return None
