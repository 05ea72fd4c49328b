"""What stands between Boulton and the GPUs of this machine: gathered by reading alone, nothing is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.protocol import AskBounds, Refusal, Refused, bounds_from
from optimizer.devices.keeper.session import KeeperUnreachable, open_session
from optimizer.devices.nvml.actuator import ClockBounds
from optimizer.devices.nvml.capabilities import Capability, Rights, own_rights, probe
from optimizer.devices.nvml.discovery import find_gpus, order_warning, select_gpu, visible_gpus
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Card, Nvml

_KEEPER = "keeper"
_NOT_CONFIGURED = (Refusal.UNKNOWN_GPU, Refusal.PEER)
_WITHOUT = "without a keeper the batch size alone is governed"
_ANSWER_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class GpuDiagnosis:
    """One GPU. `index` is NVML's; `uuid` is empty for a GPU that cannot be had, `why_not` then says why."""

    index: int
    uuid: str
    name: str
    capabilities: tuple[Capability, ...]
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The machine.

    Args:
        driver: the version of the NVIDIA driver.
        simulated: whether the NVML library is the stand-in, whose GPUs exist in software only.
        gpus: those that were asked for.
        warnings: what concerns several of them.
    """

    driver: str
    simulated: bool
    gpus: tuple[GpuDiagnosis, ...]
    warnings: tuple[str, ...]


def diagnose(wanted: str | None, environment: Mapping[str, str], keeper: Path | None) -> Diagnosis:
    """Look at one GPU, or at all of them.

    Args:
        wanted: an index among the visible GPUs, or a UUID or its beginning; None for all, visible or not.
        environment: holds CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER.
        keeper: the keeper's socket; None not to look for one.

    Raises:
        NvmlFailure: there is no NVML.
        DeviceError: the GPU that is wanted is not there.
    """
    with Nvml() as nvml:
        rights = own_rights()
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if wanted is not None:
            gpus = [_diagnose(select_gpu(nvml, wanted, visible), rights, keeper)]
        else:
            gpus = [
                GpuDiagnosis(found.index, "", "", (), found.why_not)
                if found.card is None
                else _diagnose(found.card, rights, keeper, found.index)
                for found in find_gpus(nvml)
            ]
        return Diagnosis(
            _driver(nvml), nvml.simulated, tuple(gpus), tuple(_warnings(nvml, gpus, environment))
        )


def ask_keeper(keeper: Path, uuid: str) -> Capability:
    """Ask a keeper what it permits on a GPU; takes no lease. Never raises."""
    try:
        session, _lease_s = open_session(keeper, _ANSWER_WITHIN_S)
        with closing(session):
            bounds = bounds_from(session.ask(AskBounds(uuid)))
    except Refused as refused:
        named = refused.code not in _NOT_CONFIGURED
        remedy = _WITHOUT if named else "let its configuration name this GPU and this user"
        return Capability(_KEEPER, False, str(refused), remedy)
    except KeeperUnreachable as error:
        return Capability(_KEEPER, False, str(error), _WITHOUT)
    return Capability(_KEEPER, True, f"permits {_bounds_text(bounds)}")


def _diagnose(card: Card, rights: Rights, keeper: Path | None, index: int | None = None) -> GpuDiagnosis:
    capabilities = probe(card, rights).items
    if keeper is not None:
        capabilities += (ask_keeper(keeper, card.uuid),)
    try:
        return GpuDiagnosis(card.index() if index is None else index, card.uuid, card.name(), capabilities)
    except NvmlFailure as failure:
        return GpuDiagnosis(-1 if index is None else index, card.uuid, "", capabilities, str(failure))


def _driver(nvml: Nvml) -> str:
    try:
        return nvml.driver_version()
    except NvmlFailure as failure:
        return failure.code_name


def _warnings(nvml: Nvml, gpus: Sequence[GpuDiagnosis], environment: Mapping[str, str]) -> list[str]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = [gpu.name for gpu in gpus if gpu.name]
    warnings = [order_warning(names, visible, environment.get("CUDA_DEVICE_ORDER"))]
    try:
        found = find_gpus(nvml)
        seen = visible_gpus(found, visible)
        if len(seen) < len(found):
            shown = ", ".join(gpu.card.uuid for gpu in seen if gpu.card) or "none of the GPUs"
            warnings.append(f"CUDA_VISIBLE_DEVICES={visible} shows {shown} to CUDA")
    except DeviceError as error:
        warnings.append(str(error))
    return [warning for warning in warnings if warning]


def _bounds_text(bounds: ClockBounds) -> str:
    parts = [f"{bounds.sm_low_mhz} to {bounds.sm_high_mhz} MHz"]
    if bounds.memory_clocks_mhz:
        parts.append(f"memory {', '.join(map(str, bounds.memory_clocks_mhz))} MHz")
    if bounds.power_low_w is not None and bounds.power_high_w is not None:
        parts.append(f"{bounds.power_low_w:g} to {bounds.power_high_w:g} W")
    return ", ".join(parts)
