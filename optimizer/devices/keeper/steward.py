"""One GPU: sets it, and puts back what it was. Blocks as long as NVML does; one thread uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import Axis, Marker
from optimizer.devices.keeper.marker_files import MarkerFiles
from optimizer.devices.keeper.permits import Permit, bounds_of
from optimizer.devices.keeper.undoing import LACKING, undo
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.failures import NvmlFailure, Remedy
from optimizer.devices.nvml.library import Card, Nvml

T = TypeVar("T")


class Steward:
    """Sets and restores one GPU. Every change is announced by a marker on disk.

    Args:
        uuid: the GPU.
        permit: what the configuration permits; None: nothing but putting it back.
        nvml: opened before the first call.
        markers: where markers are kept.
    """

    def __init__(self, uuid: str, permit: Permit | None, nvml: Nvml, markers: MarkerFiles) -> None:
        self._uuid = uuid
        self._permit = permit
        self._nvml = nvml
        self._markers = markers
        self._in_force = GpuSetting()
        self._changes: Marker | None = None  # as on disk, should somebody remove the file

    def inspect(self) -> ClockBounds:
        """Return what may be set; raises DeviceError when the GPU cannot or must not be set."""
        card = self._card()
        if self._permit is None:
            raise DeviceError(f"{self._uuid} is not on the keeper's list")
        if card.mig_enabled():
            raise DeviceError(
                f"{self._uuid} is cut into MIG instances: its clocks belong to all of them, so they are not "
                "set; switch MIG off with `nvidia-smi -mig 0`, or govern without --control"
            )
        return bounds_of(self._permit, _sm_clocks_mhz(card))

    def apply(self, setting: GpuSetting) -> None:
        """Make a setting the GPU's, whole. Raises DeviceError, and then some of it may have been done."""
        card = self._card()
        previous, self._in_force = self._in_force, GpuSetting()
        again = setting == previous
        if again or _clocks(setting) != _clocks(previous):
            self._set_clocks(card, setting)
        if again or setting.power_limit_w != previous.power_limit_w:
            self._set_power(card, setting.power_limit_w)
        self._in_force = setting

    def restore(self) -> None:
        """Put back whatever the marker names, check it, and remove the marker.

        Everything is tried, also after a failure. Raises the first DeviceError; then the marker stays.
        """
        self._in_force = GpuSetting()
        marker = self._known()
        if marker is None:
            return
        failures = list(self._failures_undoing(self._card(), marker))
        if failures:
            raise failures[0]
        self._remove_marker()

    def _failures_undoing(self, card: Card, marker: Marker) -> Iterator[DeviceError]:
        for axis in Axis:
            if axis in marker.changed:
                try:
                    undo(card, axis, marker)
                except DeviceError as failure:
                    yield failure

    def _set_clocks(self, card: Card, setting: GpuSetting) -> None:
        """Lock what can be locked; what cannot is set as application clocks, both of them together."""
        sm_mhz = self._lock(card, Axis.SM_LOCK, setting.sm_clock_mhz, card.lock_sm_clock)
        memory_mhz = self._lock(card, Axis.MEMORY_LOCK, setting.memory_clock_mhz, card.lock_memory_clock)
        if sm_mhz is None and memory_mhz is None:
            self._give_back(card, Axis.APPLICATION_CLOCKS)
            return
        saved = self._marker(card).application_clocks_mhz
        if saved is None:
            raise DeviceError(
                f"{self._uuid}: this card has neither locked clocks nor application clocks that can be read "
                f"and put back, so its clocks are not set{_why_not(card.application_clocks_mhz)}"
            )
        sm_wanted_mhz = sm_mhz or setting.sm_clock_mhz or saved[0]
        clocks_mhz = memory_mhz or saved[1], sm_wanted_mhz
        self._change(card, Axis.APPLICATION_CLOCKS, lambda: card.set_application_clocks(*clocks_mhz))

    def _lock(self, card: Card, axis: Axis, clock_mhz: int | None, lock: Callable[[int], None]) -> int | None:
        """Lock a clock, or give it back for None; return the clock when the card knows no such lock."""
        if clock_mhz is None:
            self._give_back(card, axis)
            return None
        try:
            self._change(card, axis, lambda: lock(clock_mhz))
        except NvmlFailure as failure:
            if failure.code not in LACKING:
                raise
            return clock_mhz
        return None

    def _set_power(self, card: Card, limit_w: float | None) -> None:
        if limit_w is None:
            self._give_back(card, Axis.POWER_LIMIT)
        elif self._marker(card).power_limit_w is None:
            why = _why_not(card.power_limit_w)
            raise DeviceError(
                f"{self._uuid}: its power limit cannot be read and put back, so it is not set{why}"
            )
        else:
            self._change(card, Axis.POWER_LIMIT, lambda: card.set_power_limit_w(limit_w))

    def _change(self, card: Card, axis: Axis, change: Callable[[], None]) -> None:
        """Change something between two markers: that it may be changed now, and that it was."""
        before = self._marker(card)
        if axis in before.confirmed:
            change()
            return
        self._write_marker(before.about_to(axis))
        try:
            change()
        except NvmlFailure as failure:
            if failure.code in LACKING:
                self._write_marker(before)
            raise
        self._write_marker(before.about_to(axis).confirm(axis))

    def _give_back(self, card: Card, axis: Axis) -> None:
        marker = self._known()
        if marker is not None and axis in marker.changed:
            undo(card, axis, marker)
            self._write_marker(marker.without(axis))

    def _marker(self, card: Card) -> Marker:
        """What was changed so far, or the marker to begin with: how the card is now."""
        marker = self._known()
        return _as_it_is(card) if marker is None else marker

    def _known(self) -> Marker | None:
        return self._changes or self._markers.read(self._uuid)

    def _write_marker(self, marker: Marker) -> None:
        self._changes = marker if marker.changed else None
        try:
            if marker.changed:
                self._markers.write(self._uuid, marker)
            else:
                self._markers.remove(self._uuid)
        except OSError as error:
            raise DeviceError(f"{self._uuid}: cannot write its marker: {error}") from error

    def _remove_marker(self) -> None:
        self._write_marker(Marker())

    def _card(self) -> Card:
        # Looked up each time: a GPU that was lost and came back has another handle, and so has NVML.
        try:
            return self._nvml.card(self._uuid)
        except NvmlFailure as failure:
            if not failure.absent:
                raise
        self._nvml.reopen()
        return self._nvml.card(self._uuid)


def _clocks(setting: GpuSetting) -> tuple[int | None, int | None]:
    return setting.sm_clock_mhz, setting.memory_clock_mhz


def _sm_clocks_mhz(card: Card) -> tuple[int, ...]:
    memory_clocks_mhz = card.supported_memory_clocks_mhz()
    return card.supported_sm_clocks_mhz(memory_clocks_mhz[-1]) if memory_clocks_mhz else ()


def _as_it_is(card: Card) -> Marker:
    """How the card is before anything is changed; what it cannot tell is None."""
    return Marker(
        power_limit_w=_if_offered(card.power_limit_w),
        application_clocks_mhz=_if_offered(card.application_clocks_mhz),
    )


def _why_not(ask: Callable[[], object]) -> str:
    try:
        ask()
    except NvmlFailure as failure:
        return f" ({failure})"
    return ""


def _if_offered(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except NvmlFailure as failure:
        if failure.remedy is not Remedy.OBSERVE:
            raise
        return None
