"""Which GPU is meant: by index, by UUID, and among those that CUDA_VISIBLE_DEVICES leaves visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.failures import NvmlFailure, Remedy
from optimizer.devices.nvml.library import Card, Nvml

_UUID = "GPU-"
_MIG = "MIG"
_WHY_NOT_MIG = (
    "a MIG instance shares clock, power and energy counter with the others of its GPU, so they can neither be"
    " set nor charged to it: name the whole GPU"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A GPU that NVML lists: the card, or why it cannot be had (lost, no permission)."""

    index: int
    card: Card | None
    why_not: str = ""


def find_gpus(nvml: Nvml) -> tuple[Found, ...]:
    """Return every GPU by NVML's index, the order of the PCI bus. A lost one does not hide the others.

    Raises NvmlFailure when there is no NVML any more.
    """
    return tuple(_find(nvml, index) for index in range(nvml.count()))


def select_gpu(nvml: Nvml, wanted: str | None, visible: str | None) -> Card:
    """Return the GPU that is wanted.

    Args:
        nvml: opened.
        wanted: an index among the visible GPUs, or a UUID or its beginning (`GPU-5f3c`); None for the first.
        visible: the value of CUDA_VISIBLE_DEVICES; None when it is not set, "" or "-1" to hide all.

    Raises:
        DeviceError: there is no such GPU, or it is hidden, or several are meant, or a MIG instance is.
        NvmlFailure: NVML failed.
    """
    found = find_gpus(nvml)
    seen = visible_gpus(found, visible)
    chosen = _choose(seen, found, "0" if wanted is None else wanted, visible)
    if chosen.card is None:
        raise DeviceError(f"GPU {chosen.index} cannot be used: {chosen.why_not}")
    return chosen.card


def visible_gpus(found: Sequence[Found], visible: str | None) -> tuple[Found, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order. Raises DeviceError.

    As CUDA does: indices, UUIDs or their beginnings, separated by commas; whatever follows an entry that
    names no GPU (`-1`, say) is hidden. Indices are NVML's: CUDA counts in the same order when all GPUs are
    alike, or with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if visible is None:
        return tuple(found)
    seen: list[Found] = []
    for entry in (part.strip() for part in visible.split(",")):
        gpu = _entry(found, entry)
        if gpu is None:
            break
        if gpu in seen:
            raise DeviceError(
                f"CUDA_VISIBLE_DEVICES={visible} names GPU {gpu.index} twice: CUDA shows none then"
            )
        seen.append(gpu)
    return tuple(seen)


def order_warning(names: Sequence[str], visible: str | None, cuda_device_order: str | None) -> str:
    """Say that CUDA may count the GPUs in another order than NVML; empty when it does not.

    Args:
        names: of all GPUs.
        visible: the value of CUDA_VISIBLE_DEVICES.
        cuda_device_order: the value of CUDA_DEVICE_ORDER.
    """
    by_uuid = visible is not None and not any(part.strip().isdecimal() for part in visible.split(","))
    if by_uuid or len(set(names)) < 2 or cuda_device_order == "PCI_BUS_ID":
        return ""
    return (
        f"GPUs of {len(set(names))} kinds: NVML counts them by PCI bus, CUDA the fastest first;"
        " set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID"
    )


def _find(nvml: Nvml, index: int) -> Found:
    try:
        return Found(index, nvml.card_at(index))
    except NvmlFailure as failure:
        if failure.remedy is Remedy.ABSENT:
            raise
        return Found(index, None, str(failure))


def _choose(seen: Sequence[Found], found: Sequence[Found], wanted: str, visible: str | None) -> Found:
    if wanted.upper().startswith(_MIG):
        raise DeviceError(f"{wanted}: {_WHY_NOT_MIG}")
    meant = _meant(seen, wanted)
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise DeviceError(f"{wanted} begins the UUIDs of {_names(meant)}: write more of it")
    hidden = f" (CUDA_VISIBLE_DEVICES={visible!r} hides the other {len(found) - len(seen)})"
    choice = f"{_names(seen)}{hidden if len(seen) < len(found) else ''}"
    silent = "".join(f"; GPU {gpu.index} cannot be used: {gpu.why_not}" for gpu in found if gpu.card is None)
    raise DeviceError(f"no GPU {wanted} here; choose of {choice}{silent}")


def _meant(seen: Sequence[Found], wanted: str) -> Sequence[Found]:
    if wanted.isdecimal():
        return seen[int(wanted) : int(wanted) + 1]
    return _by_uuid(seen, wanted)


def _entry(found: Sequence[Found], entry: str) -> Found | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES names; None when it names none."""
    if entry.upper().startswith(_MIG):
        raise DeviceError(f"CUDA_VISIBLE_DEVICES names {entry}: {_WHY_NOT_MIG}")
    meant = found[int(entry) : int(entry) + 1] if entry.isdecimal() else _by_uuid(found, entry)
    return meant[0] if len(meant) == 1 else None


def _by_uuid(found: Sequence[Found], beginning: str) -> Sequence[Found]:
    if not beginning.upper().startswith(_UUID):
        return ()
    return [gpu for gpu in found if gpu.card and gpu.card.uuid.lower().startswith(beginning.lower())]


def _names(found: Sequence[Found]) -> str:
    names = [f"{place} ({gpu.card.uuid if gpu.card else 'lost'})" for place, gpu in enumerate(found)]
    return ", ".join(names) or "none"
