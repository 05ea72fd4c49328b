"""One GPU set and put back, through the real nvidia-ml-py, with the process dying at every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
from nvml_rack import CardSpec, Rack, make_card, make_rack, nvml_here

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import Axis, Marker
from optimizer.devices.keeper.marker_files import MarkerFiles
from optimizer.devices.keeper.permits import Permit
from optimizer.devices.keeper.steward import Steward
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.failures import KNOWN_CODES, NvmlFailure, Remedy, remedy_for
from optimizer.devices.nvml.library import Card, Nvml

AMPERE, PASCAL, VOLTA = make_card("ampere"), make_card("pascal", 1), make_card("volta", 2)
PERMIT = Permit(power_limit_w=(100.0, 250.0), memory_clocks_mhz=(715, 877, 1215))
EVERYTHING = {
    "ampere": GpuSetting(1005, 1215, 175.0),
    "pascal": GpuSetting(862, 715, 175.0),
    "volta": GpuSetting(1200, 877, 175.0),
}
SETTERS = [
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceSetMemoryLockedClocks",
    "nvmlDeviceSetApplicationsClocks",
    "nvmlDeviceSetPowerManagementLimit",
]
RESETTERS = [
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceResetMemoryLockedClocks",
    "nvmlDeviceResetApplicationsClocks",
]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class FragileMarkers(MarkerFiles):
    """Markers whose process dies before or after a given write or removal."""

    def __init__(self, directory: Path, die_at: int, before: bool) -> None:
        super().__init__(directory)
        self._left = die_at
        self._before = before

    def write(self, uuid: str, marker: Marker) -> None:
        self._step(lambda: MarkerFiles.write(self, uuid, marker))

    def remove(self, uuid: str) -> None:
        self._step(lambda: MarkerFiles.remove(self, uuid))

    def _step(self, action: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0 and self._before:
            raise Killed
        action()
        if self._left == 0:
            raise Killed


class World:
    """One card, NVML in this process, and a state directory."""

    def __init__(self, rack: Rack, spec: CardSpec, state_dir: Path, nvml: Nvml) -> None:
        self.rack, self.spec, self.nvml, self.state_dir = rack, spec, nvml, state_dir
        self.markers = MarkerFiles(state_dir)
        self.card = nvml.card(spec.uuid)

    def steward(self, markers: MarkerFiles | None = None, permit: Permit | None = PERMIT) -> Steward:
        return Steward(self.spec.uuid, permit, self.nvml, markers or self.markers)

    @property
    def all_of_it(self) -> GpuSetting:
        return EVERYTHING[self.spec.kind]

    @property
    def default(self) -> bool:
        return self.rack.card().is_default


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of markers are written here; whether they reach the disk is tested with the files."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(params=[AMPERE, PASCAL, VOLTA], ids=lambda spec: spec.kind)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


@pytest.fixture
def ampere(tmp_path: Path) -> Iterator[World]:
    yield from _world(AMPERE, tmp_path)


@pytest.fixture
def pascal(tmp_path: Path) -> Iterator[World]:
    yield from _world(PASCAL, tmp_path)


def _world(spec: CardSpec, tmp_path: Path) -> Iterator[World]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with make_rack(tmp_path, spec) as rack, nvml_here(rack), Nvml(sleep=lambda _s: None) as nvml:
        yield World(rack, spec, state_dir, nvml)


def test_bounds_are_those_of_the_card_and_the_permit(world: World) -> None:
    clocks = world.spec.sm_clocks_mhz
    found = world.steward().inspect()
    assert found == ClockBounds(clocks[0], clocks[-1], 100.0, 250.0, (715, 877, 1215))


def test_a_card_that_is_not_listed_or_cut_by_mig_is_not_set(ampere: World) -> None:
    with pytest.raises(DeviceError, match="not on the keeper's list"):
        ampere.steward(permit=None).inspect()
    ampere.rack.set_mig(0, enabled=True)
    with pytest.raises(DeviceError, match="MIG"):
        ampere.steward().inspect()


def test_every_axis_is_set_and_put_back(world: World) -> None:
    steward = world.steward()
    steward.apply(world.all_of_it)
    truth = world.rack.card()
    assert truth.power_limit_w == 175.0
    sm_mhz = world.all_of_it.sm_clock_mhz
    if world.spec.locked_clocks:
        assert truth.locked_sm_mhz == (sm_mhz, sm_mhz)
    else:
        assert truth.application_clocks_mhz == (715, sm_mhz)
    assert world.markers.uuids() == [world.spec.uuid]
    steward.restore()
    assert world.default
    assert world.markers.uuids() == []


def test_an_axis_that_is_left_out_goes_back_by_itself(world: World) -> None:
    steward = world.steward()
    steward.apply(world.all_of_it)
    steward.apply(GpuSetting(power_limit_w=175.0))
    truth = world.rack.card()
    assert (truth.locked_sm_mhz, truth.locked_memory_mhz, truth.application_clocks_mhz) == (None, None, None)
    assert truth.power_limit_w == 175.0
    steward.apply(GpuSetting(world.all_of_it.sm_clock_mhz))
    assert world.rack.card().power_limit_w == 250.0
    steward.apply(GpuSetting())
    assert world.default
    assert world.markers.uuids() == []


def test_a_gpu_is_given_back_also_after_nvml_had_to_be_opened_anew(world: World) -> None:
    steward = world.steward()
    steward.apply(world.all_of_it)
    pynvml.nvmlShutdown()  # as after a reload of the driver: whatever is asked is UNINITIALIZED
    world.rack.fail("nvmlInit", 9, times=1)
    with pytest.raises(NvmlFailure, match="DRIVER_NOT_LOADED"):
        steward.restore()
    assert world.markers.uuids() == [world.spec.uuid]
    steward.restore()
    assert world.default
    assert world.markers.uuids() == []


def test_what_an_administrator_had_set_comes_back_exactly(world: World) -> None:
    world.rack.set_power_limit(0, 233.125)
    clocks = world.spec.sm_clocks_mhz[20]
    world.card.set_application_clocks(world.spec.memory_clocks_mhz[-1], clocks)
    before = world.rack.card()
    assert before.application_clocks_mhz == (world.spec.memory_clocks_mhz[-1], clocks)
    steward = world.steward()
    steward.apply(world.all_of_it)
    steward.apply(GpuSetting(world.all_of_it.sm_clock_mhz))
    steward.restore()
    after = world.rack.card()
    assert (after.power_limit_w, after.application_clocks_mhz) == (233.125, before.application_clocks_mhz)
    assert (after.locked_sm_mhz, after.locked_memory_mhz) == (None, None)


def test_restoring_what_was_never_set_touches_nothing(world: World) -> None:
    world.steward().restore()
    assert world.rack.set_history() == ()


def test_a_setting_that_is_repeated_is_made_again(ampere: World) -> None:
    steward = ampere.steward()
    steward.apply(GpuSetting(1005))
    ampere.card.unlock_sm_clock()  # somebody else interfered
    steward.apply(GpuSetting(1005))
    assert ampere.rack.card().locked_sm_mhz == (1005, 1005)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_keeper_that_dies_at_any_write_is_cleaned_up_after(world: World, before: bool) -> None:
    """Die at the first write, then at the second, and so on, until everything is survived."""
    world.rack.set_power_limit(0, 240.0)
    deaths = 0
    for die_at in range(1, 100):
        steward = world.steward(FragileMarkers(world.state_dir, die_at, before))
        try:
            steward.apply(world.all_of_it)
            steward.apply(GpuSetting(world.all_of_it.sm_clock_mhz))
            steward.restore()
        except Killed:
            deaths += 1
            changed = world.rack.card().power_limit_w != 240.0 or _clocks_changed(world)
            assert world.markers.uuids() == [world.spec.uuid] or not changed
            world.steward().restore()
        else:
            break
        assert world.rack.card().power_limit_w == 240.0
        assert not _clocks_changed(world)
        assert world.markers.uuids() == []
    assert deaths >= 7


def _clocks_changed(world: World) -> bool:
    truth = world.rack.card()
    asked = truth.locked_sm_mhz, truth.locked_memory_mhz, truth.application_clocks_mhz
    return asked != (None, None, None)


def _tried(*attempts: Callable[[], None]) -> list[DeviceError]:
    """Do one thing after the other, whatever fails; return what failed."""
    failures = []
    for attempt in attempts:
        try:
            attempt()
        except DeviceError as error:
            failures.append(error)
    return failures


@pytest.mark.parametrize("function", SETTERS)
def test_a_setter_that_fails_with_any_code_leaves_nothing_behind(world: World, function: str) -> None:
    for code in KNOWN_CODES:
        steward = world.steward()
        world.rack.fail(function, code)
        failures = _tried(lambda: steward.apply(world.all_of_it))  # noqa: B023 - called at once
        assert all(isinstance(error, NvmlFailure) and error.code == code for error in failures)
        world.rack.clear_failures()
        steward.restore()
        assert world.default
        assert world.markers.uuids() == []


@pytest.mark.parametrize("function", [*SETTERS, *RESETTERS])
def test_what_was_done_is_put_back_though_it_was_called_a_failure(world: World, function: str) -> None:
    """Exempt is a driver that sets and says that it cannot: nobody can know that it did."""
    exempt = (3, 13) if function in SETTERS else ()
    for code in (code for code in KNOWN_CODES if code not in exempt):
        steward = world.steward()
        world.rack.fail(function, code, when="after", times=4)
        _tried(lambda: steward.apply(world.all_of_it), *[steward.restore] * 3)  # noqa: B023
        world.rack.clear_failures()
        steward.restore()
        assert world.default


@pytest.mark.parametrize("function", RESETTERS)
def test_a_resetter_that_fails_keeps_the_marker_until_it_works(world: World, function: str) -> None:
    for code in KNOWN_CODES:
        world.steward().apply(world.all_of_it)
        world.rack.fail(function, code)
        failed = bool(_tried(world.steward().restore))
        assert world.default != failed  # a function that this card does not need may fail as it likes
        assert bool(world.markers.uuids()) == failed
        world.rack.clear_failures()
        world.steward().restore()
        assert world.default
        assert world.markers.uuids() == []


def test_one_axis_that_cannot_be_put_back_does_not_keep_the_others(ampere: World) -> None:
    steward = ampere.steward()
    steward.apply(ampere.all_of_it)
    ampere.rack.fail("nvmlDeviceSetPowerManagementLimit", 999)
    with pytest.raises(NvmlFailure):
        steward.restore()
    assert not _clocks_changed(ampere)
    assert ampere.rack.card().power_limit_w == 175.0


def test_a_power_limit_that_only_seems_to_come_back_is_noticed(
    ampere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    steward = ampere.steward()
    steward.apply(GpuSetting(power_limit_w=175.0))
    with monkeypatch.context() as patched:
        patched.setattr(Card, "set_power_limit_w", lambda _card, _watts: None)
        with pytest.raises(DeviceError, match="is 175 W and was to be 250 W again"):
            steward.restore()
    assert ampere.markers.uuids() == [ampere.spec.uuid]
    steward.restore()
    assert ampere.default


def test_application_clocks_that_only_seem_to_come_back_are_noticed(
    pascal: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    steward = pascal.steward()
    steward.apply(GpuSetting(862))
    with monkeypatch.context() as patched:
        patched.setattr(Card, "reset_application_clocks", lambda _card: None)
        with pytest.raises(DeviceError, match="were to be"):
            steward.restore()
    assert pascal.markers.uuids() == [pascal.spec.uuid]
    steward.restore()
    assert pascal.default


def test_what_cannot_be_read_is_not_set(ampere: World) -> None:
    ampere.rack.fail("nvmlDeviceGetPowerManagementLimit", 3)
    with pytest.raises(DeviceError, match="cannot be read and put back"):
        ampere.steward().apply(GpuSetting(power_limit_w=175.0))
    assert ampere.default


def test_application_clocks_that_cannot_be_read_are_not_set(pascal: World) -> None:
    pascal.rack.fail("nvmlDeviceGetApplicationsClock", 3)
    with pytest.raises(DeviceError, match="neither locked clocks nor application clocks"):
        pascal.steward().apply(GpuSetting(862))
    assert pascal.default


@pytest.mark.parametrize("code", [code for code in KNOWN_CODES if remedy_for(code) is not Remedy.OBSERVE])
@pytest.mark.parametrize("function", ["nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetApplicationsClock"])
def test_a_card_that_does_not_answer_is_not_set(ampere: World, function: str, code: int) -> None:
    ampere.rack.fail(function, code)
    with pytest.raises(NvmlFailure):
        ampere.steward().apply(GpuSetting(1005))
    assert ampere.rack.set_history() == ()
    assert ampere.markers.uuids() == []


def test_without_a_marker_on_disk_nothing_is_set(ampere: World) -> None:
    ampere.state_dir.rmdir()
    with pytest.raises(DeviceError, match="cannot write its marker"):
        ampere.steward().apply(GpuSetting(1005))
    assert ampere.rack.set_history() == ()


@pytest.mark.parametrize("directory_too", [False, True])
def test_a_marker_that_somebody_removed_is_not_needed_while_the_keeper_lives(
    world: World, directory_too: bool
) -> None:
    steward = world.steward()
    steward.apply(world.all_of_it)
    (world.state_dir / f"{world.spec.uuid}.json").unlink()
    if directory_too:
        world.state_dir.rmdir()
    _tried(steward.restore)  # without the directory it cannot see the marker gone, and is called once more
    assert world.default
    steward.restore()


def test_a_lost_card_is_put_back_when_it_returns(ampere: World) -> None:
    steward = ampere.steward()
    steward.apply(ampere.all_of_it)
    ampere.rack.lose(0)
    with pytest.raises(NvmlFailure):
        steward.restore()
    assert ampere.markers.uuids() == [ampere.spec.uuid]
    ampere.rack.recover(0)
    steward.restore()
    assert ampere.default


def test_an_unreadable_marker_brings_everything_back_to_the_cards_default(world: World) -> None:
    world.steward().apply(world.all_of_it)
    (world.state_dir / f"{world.spec.uuid}.json").write_text("torn")
    world.steward().restore()
    assert world.default
    assert world.markers.uuids() == []


def test_every_axis_can_be_undone(ampere: World) -> None:
    for axis in Axis:
        ampere.markers.write(ampere.spec.uuid, Marker(frozenset({axis}), frozenset(), 250.0, (1410, 1215)))
        ampere.steward().restore()
        assert ampere.default
        assert ampere.markers.uuids() == []
