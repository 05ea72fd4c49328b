"""`boulton reset`: what it does, what it says, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keeper_process import KeeperHome, RawClient, holder
from nvml_rack import Rack, rack_env

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import Axis, Marker
from optimizer.devices.keeper.marker_files import MarkerFiles


def reset(rack: Rack, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "server.cli", "reset", *map(str, flags)]
    return subprocess.run(
        program, env=rack_env(rack), capture_output=True, text=True, check=False, timeout=60
    )


def test_after_a_keeper_that_died_it_gives_back_what_the_markers_name(home: KeeperHome) -> None:
    home.rack.set_power_limit(0, 233.125)
    with holder(home, 0, 1005), holder(home, 1, 862):
        home.kill()
    done = reset(home.rack, "--state-dir", home.state_dir)
    assert done.returncode == 0, done.stderr
    assert home.rack.card(0).locked_sm_mhz is None
    assert home.rack.card(0).power_limit_w == 233.125
    assert home.default(1)
    assert home.markers() == []
    assert f"{home.rack.uuid(0)}: power limit: 233.125 W, as it was" in done.stdout
    assert f"{home.rack.uuid(0)}: its marker is removed" in done.stdout


def test_without_a_marker_everything_goes_to_the_cards_default(rack: Rack, tmp_path: Path) -> None:
    rack.set_power_limit(0, 200.0)
    done = reset(rack, "--gpu", rack.uuid(0), "--state-dir", tmp_path / "none")
    assert done.returncode == 0, done.stderr
    assert rack.card(0).is_default
    assert "power limit: its default" in done.stdout
    assert {call.card for call in rack.set_history()} == {0}


@pytest.mark.parametrize("code", [3, 13, 26])
def test_what_the_driver_has_given_up_need_not_be_given_back(rack: Rack, tmp_path: Path, code: int) -> None:
    for function in ("GetApplicationsClock", "GetDefaultApplicationsClock", "ResetApplicationsClocks"):
        rack.fail(f"nvmlDevice{function}", code)
    done = reset(rack, "--gpu", rack.uuid(0), "--state-dir", tmp_path / "none")
    assert done.returncode == 0, done.stdout


def test_a_gpu_may_be_named_by_its_index_or_the_beginning_of_its_uuid(rack: Rack, tmp_path: Path) -> None:
    beginning = rack.uuid(0)[:12]
    for name, card in (("1", 1), (beginning, 0)):
        done = reset(rack, "--gpu", name, "--state-dir", tmp_path / "none")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"{rack.uuid(card)}: ") == len(Axis)
    wrong = reset(rack, "--gpu", "7", "--state-dir", tmp_path / "none")
    assert wrong.returncode == 2
    assert f"no GPU 7 here; choose of 0 ({rack.uuid(0)})" in wrong.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_may_not_see_the_markers_is_not_told_that_there_are_none(rack: Rack, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    with as_nobody(), pytest.raises(DeviceError, match=r"cannot be read: .*; run as root"):
        MarkerFiles(state_dir).uuids()


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_gpus_may_come_from_the_keepers_configuration(rack: Rack, tmp_path: Path) -> None:
    config = tmp_path / "keeper.toml"
    config.write_text(f'state_dir = "{tmp_path / "none"}"\n[[gpu]]\nuuid = "{rack.uuid(1)}"\n')
    done = reset(rack, "--config", config)
    assert done.returncode == 0, done.stderr
    assert {call.card for call in rack.set_history()} == {1}


def test_beside_a_running_keeper_it_resets_and_leaves_the_markers(home: KeeperHome) -> None:
    client = RawClient(home.socket)
    client.hold(home.rack.uuid(0), 1005)
    done = reset(home.rack, "--state-dir", home.state_dir)
    assert done.returncode == 0
    assert home.default(0)
    assert "a keeper is running, and may set GPUs again" in done.stdout
    client.close()


def test_without_a_gpu_it_says_how_to_name_one(rack: Rack, tmp_path: Path) -> None:
    done = reset(rack, "--state-dir", tmp_path)
    assert done.returncode == 2
    assert "`boulton doctor` lists them" in done.stderr
    assert rack.set_history() == ()


@pytest.mark.parametrize("code", [4, 15, 999])
def test_what_fails_is_said_and_the_marker_stays(rack: Rack, tmp_path: Path, code: int) -> None:
    uuid = rack.uuid(0)
    markers = MarkerFiles(tmp_path)
    markers.write(uuid, Marker(frozenset({Axis.SM_LOCK}), frozenset({Axis.SM_LOCK}), 250.0, None))
    rack.fail("nvmlDeviceResetGpuLockedClocks", code)
    done = reset(rack, "--state-dir", tmp_path)
    assert done.returncode == 1
    assert f"{uuid}: locked SM clock: FAILED" in done.stdout
    assert markers.uuids() == [uuid]


def test_without_nvml_it_says_so(rack: Rack, tmp_path: Path) -> None:
    rack.fail("nvmlInit", 12)
    done = reset(rack, "--gpu", rack.uuid(0), "--state-dir", tmp_path)
    assert done.returncode == 2
    assert "LIBRARY_NOT_FOUND" in done.stderr


def test_a_gpu_that_is_not_there_is_said(rack: Rack, tmp_path: Path) -> None:
    done = reset(rack, "--gpu", "GPU-of-another-machine", "--state-dir", tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == len(Axis)
