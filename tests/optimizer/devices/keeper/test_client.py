"""`KeeperClient` against a keeper that runs, one that does not, and ones that misbehave."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from keeper_process import KeeperHome, eventually, keeper_home
from nvml_rack import Rack

from optimizer.devices.gpu import DeviceError, DeviceLost
from optimizer.devices.keeper import client as client_module
from optimizer.devices.keeper.client import KeeperClient
from optimizer.devices.keeper.protocol import Refusal, Refused
from optimizer.devices.keeper.session import KeeperSilent, KeeperUnreachable
from optimizer.devices.nvml.actuator import Actuator, ClockBounds, GpuSetting

FAST = GpuSetting(1005)


@pytest.fixture
def client(home: KeeperHome) -> Iterator[KeeperClient]:
    made = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0)
    yield made
    made.close()


def test_it_is_an_actuator(home: KeeperHome, client: KeeperClient) -> None:
    actuator: Actuator = client
    assert actuator.bounds() == ClockBounds(210, 1410)
    assert home.rack.set_history() == ()
    actuator.set(FAST)
    assert home.rack.card().locked_sm_mhz == (1005, 1005)
    actuator.set(GpuSetting(1020))
    assert home.rack.card().locked_sm_mhz == (1020, 1020)
    actuator.release()
    assert home.default()
    actuator.set(FAST)
    actuator.close()
    home.wait_default()


def test_the_constructor_does_nothing() -> None:
    client = KeeperClient(Path("/nowhere/keeper.sock"), "GPU-1")
    assert client.trouble == ""
    client.release()
    client.close()


def test_without_a_keeper_it_says_what_to_do(tmp_path: Path) -> None:
    client = KeeperClient(tmp_path / "keeper.sock", "GPU-1")
    assert client.bounds() is None
    assert "is `boulton keeper` running" in client.trouble
    with pytest.raises(DeviceError, match="is `boulton keeper` running"):
        client.set(FAST)
    client.close()


def test_a_lease_is_kept_for_as_long_as_the_client_lives(home: KeeperHome, client: KeeperClient) -> None:
    client.set(FAST)
    time.sleep(3.0)  # twice the lease has passed
    assert home.rack.card().locked_sm_mhz == (1005, 1005)
    assert client.trouble == ""
    assert "has not renewed" not in home.text


def test_out_of_bounds_is_refused_and_the_earlier_setting_stays(rack: Rack) -> None:
    with keeper_home(rack, "--gpu", f"{rack.uuid(0)}:500-1207") as home:
        home.start()
        client = KeeperClient(home.socket, rack.uuid(0), timeout_s=30.0)
        assert client.bounds() == ClockBounds(510, 1200)
        client.set(FAST)
        with pytest.raises(Refused, match="permitted are 510 to 1200 MHz"):
            client.set(GpuSetting(1410))
        assert client.trouble == ""
        assert rack.card().locked_sm_mhz == (1005, 1005)
        client.close()


def test_a_gpu_that_refuses_is_given_back_and_can_be_set_later(
    home: KeeperHome, client: KeeperClient
) -> None:
    client.set(FAST)
    home.rack.fail("nvmlDeviceSetGpuLockedClocks", 999, times=1)
    with pytest.raises(Refused) as caught:
        client.set(GpuSetting(1020))
    assert caught.value.code is Refusal.GPU
    assert client.trouble != ""
    home.wait_default()
    client.set(GpuSetting(1020))
    assert client.trouble == ""
    assert home.rack.card().locked_sm_mhz == (1020, 1020)


def test_another_holder_is_named(home: KeeperHome, client: KeeperClient) -> None:
    client.set(FAST)
    second = KeeperClient(home.socket, home.rack.uuid(0))
    with pytest.raises(Refused, match=f"held by pid {os.getpid()}, uid {os.geteuid()}"):
        second.set(FAST)
    assert second.bounds() == ClockBounds(210, 1410)
    client.release()
    second.set(FAST)
    second.close()


def test_a_set_after_the_keeper_came_back_finds_it(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0, renew_s=600.0)
    client.set(FAST)
    home.kill()
    with pytest.raises(DeviceError):
        client.set(GpuSetting(1020))
    home.start()
    client.set(GpuSetting(1020))
    assert home.rack.card().locked_sm_mhz == (1020, 1020)
    client.close()


def test_after_a_set_that_failed_nothing_is_set_behind_anybodys_back(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0)
    client.set(FAST)
    home.kill()
    with pytest.raises(DeviceError):
        client.set(GpuSetting(1020))
    home.start()
    home.wait_default()
    time.sleep(1.0)  # several renewals would have come
    assert home.default()
    client.close()


def test_loss_and_return_are_each_said_once(
    home: KeeperHome, client: KeeperClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "boulton.keeper_client"):
        client.set(FAST)
        home.kill()
        eventually(lambda: client.trouble != "", "it notices")
        time.sleep(1.5)  # it has tried several times
        assert len(caplog.records) == 1
        home.start()
        eventually(lambda: client.trouble == "", "it is back")
    assert len(caplog.records) == 2
    assert home.rack.card().locked_sm_mhz == (1005, 1005)


def test_a_keeper_that_stands_still_is_given_up_on(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=0.3)
    client.set(FAST)
    home.tell(signal.SIGSTOP)
    try:
        with pytest.raises(KeeperSilent, match="gave no answer"):
            client.set(GpuSetting(1020))
        with pytest.raises(KeeperUnreachable, match=r"whether .* was given back is not known"):
            client.release()
    finally:
        home.tell(signal.SIGCONT)
    client.close()
    home.wait_default()


def test_of_a_keeper_that_stands_still_nothing_is_asked_twice(tmp_path: Path) -> None:
    path, came = tmp_path / "s", threading.Semaphore(0)
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as pool:
        listener.bind(str(path))
        listener.listen()
        client = KeeperClient(path, "GPU-1", timeout_s=0.2)
        taken: list[socket.socket] = []

        def accept() -> None:
            taken.append(listener.accept()[0])
            came.release()

        pool.submit(accept)
        for _ in range(3):
            with pytest.raises(KeeperSilent):
                client.set(FAST)
        assert client.bounds() is None
        client.close()
        assert came.acquire(timeout=30)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_after_a_while_a_silent_keeper_is_asked_again(
    home: KeeperHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S", 0.0)
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=0.3)
    home.tell(signal.SIGSTOP)
    try:
        with pytest.raises(KeeperSilent):
            client.set(FAST)
    finally:
        home.tell(signal.SIGCONT)
    eventually(lambda: client.bounds() is not None, "it answers")
    client.close()


def test_after_a_keeper_came_back_it_is_known_that_everything_was_given_back(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0, renew_s=600.0)
    client.set(FAST)
    home.kill()
    with pytest.raises(DeviceError):
        client.set(GpuSetting(1020))
    with pytest.raises(KeeperUnreachable, match="is not known"):
        client.release()
    home.start()
    client.set(GpuSetting(1020))
    client.release()
    client.close()
    assert home.default()


def test_what_came_and_went_by_itself_is_counted(home: KeeperHome, client: KeeperClient) -> None:
    client.set(FAST)
    client.set(GpuSetting(1020))
    client.release()
    client.set(FAST)
    assert client.disturbances == 0
    home.kill()
    eventually(lambda: client.disturbances == 1, "it notices the loss")
    home.start()
    eventually(lambda: client.disturbances == 2, "it has taken it up again")
    time.sleep(0.5)
    assert client.disturbances == 2


def test_closing_never_raises(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0))
    client.set(FAST)
    home.kill()
    client.close()
    client.close()
    home.start()
    home.wait_default()


@contextmanager
def misbehaving(directory: Path, *answers: bytes) -> Iterator[Path]:
    """Something that answers each request with the next of these lines, then hangs up."""
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            accepted, _address = listener.accept()
            with accepted:
                for answer in answers:
                    accepted.recv(65536)
                    accepted.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        yield path
        serving.join()


@pytest.mark.parametrize(
    "answers",
    [
        [b""],
        [b"what?\n"],
        [b'{"ok":true}\n'],
        [b'{"ok":true,"lease_s":0}\n'],
        [b'{"ok":true,"lease_s":1.5}\n', b'{"ok":true,"bounds":7}\n'],
        [b'{"ok":true,"lease_s":1.5}\n', b"x" * 200_000],
    ],
    ids=["hangs up", "no JSON", "no lease", "no length", "no bounds", "no end"],
)
def test_whatever_answers_is_no_worse_than_nobody(tmp_path: Path, answers: list[bytes]) -> None:
    with misbehaving(tmp_path, *answers) as path:
        client = KeeperClient(path, "GPU-1", timeout_s=30.0)
        assert client.bounds() is None
        assert client.trouble != ""
        client.close()


def test_a_gpu_that_is_lost_is_no_refusal_like_others(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0)
    home.rack.fail("nvmlDeviceSetGpuLockedClocks", 15)
    with pytest.raises(DeviceLost, match="NVML says GPU_IS_LOST"):
        client.set(FAST)
    home.rack.clear_failures()
    client.close()


def test_that_a_gpu_is_lost_is_heard_when_its_bounds_are_asked_for(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=30.0)
    home.rack.fail("nvmlDeviceGetMigMode", 16)
    with pytest.raises(DeviceLost, match="NVML says RESET_REQUIRED"):
        client.bounds()
    home.rack.clear_failures()
    assert client.bounds() is not None
    client.close()


def test_while_a_gpu_cannot_be_given_back_the_first_cause_is_what_is_told(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(0), timeout_s=0.5)
    client.set(FAST)
    home.rack.fail("nvmlDeviceSetGpuLockedClocks", 999)
    home.rack.fail("nvmlDeviceResetGpuLockedClocks", 999)
    with pytest.raises(DeviceError) as first:
        client.set(GpuSetting(1020))
    with pytest.raises(DeviceError) as second:
        client.set(GpuSetting(1020))
    assert str(second.value) == str(first.value)
    assert "nvmlDeviceSetGpuLockedClocks" in str(second.value)
    home.rack.clear_failures()
    client.close()
    home.wait_default()
