"""Giving GPUs back without a keeper, for a person in a hurry: clocks to the driver, power limit as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import ANYTHING, Axis, Marker
from optimizer.devices.keeper.marker_files import MarkerFiles
from optimizer.devices.keeper.start import LOCK_NAME
from optimizer.devices.keeper.state_dir import KeeperRunning, locked
from optimizer.devices.keeper.undoing import undo
from optimizer.devices.nvml.library import Nvml

_HOW = {
    Axis.POWER_LIMIT: "its default, or this card has none",
    Axis.SM_LOCK: "lifted, or none was possible",
    Axis.MEMORY_LOCK: "lifted, or none was possible",
    Axis.APPLICATION_CLOCKS: "their default, or this card has none",
}


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was tried on a GPU."""

    uuid: str
    text: str
    succeeded: bool


def left_over(state_dir: Path) -> list[str]:
    """Return the GPUs that a keeper has changed and not given back."""
    return MarkerFiles(state_dir).uuids()


def reset(nvml: Nvml, uuids: Sequence[str], state_dir: Path) -> Iterator[Done]:
    """Give GPUs back and say what was done, one thing after the other.

    Power limits go back to what a marker has kept, to the card's default without one. Markers are removed,
    unless a keeper is running: they are its own.

    Args:
        nvml: open.
        uuids: which GPUs.
        state_dir: where the keeper's markers are.
    """
    with ExitStack() as exits:
        alone = True
        try:
            if state_dir.is_dir():
                exits.enter_context(locked(state_dir / LOCK_NAME))
        except KeeperRunning:
            alone = False
            yield Done("", "a keeper is running, and may set GPUs again: stop it as well", succeeded=True)
        except DeviceError as error:
            alone = False
            yield Done("", f"markers stay as they are: {error}", succeeded=False)
        for uuid in uuids:
            yield from _reset(nvml, uuid, MarkerFiles(state_dir), alone=alone)


def _reset(nvml: Nvml, uuid: str, markers: MarkerFiles, *, alone: bool) -> Iterator[Done]:
    marker = markers.read(uuid)
    done = list(_undone(nvml, uuid, marker or ANYTHING))
    yield from done
    if alone and marker is not None and all(each.succeeded for each in done):
        yield _unmarked(uuid, markers)


def _undone(nvml: Nvml, uuid: str, marker: Marker) -> Iterator[Done]:
    """Every axis is tried, also those that the marker does not name: a hurry is no time for trust."""
    for axis in Axis:
        try:
            undo(nvml.card(uuid), axis, marker)
            yield Done(uuid, f"{axis}: {_how(axis, marker)}", succeeded=True)
        except DeviceError as error:
            yield Done(uuid, f"{axis}: FAILED: {error}", succeeded=False)


def _how(axis: Axis, marker: Marker) -> str:
    if axis is Axis.POWER_LIMIT and marker.power_limit_w is not None:
        return f"{marker.power_limit_w:g} W, as it was"
    if axis is Axis.APPLICATION_CLOCKS and marker.application_clocks_mhz is not None:
        sm_mhz, memory_mhz = marker.application_clocks_mhz
        return f"{sm_mhz} MHz SM and {memory_mhz} MHz memory, as they were"
    return _HOW[axis]


def _unmarked(uuid: str, markers: MarkerFiles) -> Done:
    try:
        markers.remove(uuid)
    except OSError as error:
        return Done(uuid, f"its marker cannot be removed: {error}", succeeded=False)
    return Done(uuid, "its marker is removed", succeeded=True)
