"""The keeper as it is: real processes, sockets and signals, on simulated cards behind real NVML calls."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from child_process import child
from keeper_process import HOLDER, KeeperHome, RawClient, eventually, holder, keeper_home
from nvml_rack import Rack, make_card, make_rack

from optimizer.devices.keeper.client import KeeperClient
from optimizer.devices.nvml.actuator import GpuSetting

AMPERE, PASCAL = 0, 1
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")


def locked(home: KeeperHome, clock_mhz: int, card: int = AMPERE) -> bool:
    truth = home.rack.card(card)
    return clock_mhz in ((truth.locked_sm_mhz or (0,))[0], (truth.application_clocks_mhz or (0, 0))[1])


@pytest.mark.parametrize("card", [AMPERE, PASCAL])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_is_killed_gives_its_gpu_back(
    home: KeeperHome, card: int, number: signal.Signals
) -> None:
    clock_mhz = home.rack.card(card).sm_clock_mhz  # any legal one
    clock_mhz = 1005 if card == AMPERE else 862
    with holder(home, card, clock_mhz) as process:
        assert locked(home, clock_mhz, card)
        process.send_signal(number)
        home.wait_default(card)
    assert home.markers() == []


def test_a_client_killed_in_the_middle_of_a_set_gives_its_gpu_back(home: KeeperHome) -> None:
    function = "nvmlDeviceSetGpuLockedClocks"
    home.rack.slow(function, 0.5)
    with child([sys.executable, "-c", HOLDER, home.socket, home.rack.uuid(0), "1005", ""]):
        eventually(lambda: home.rack.calls(function) > 0, "the set has begun")
    eventually(lambda: home.rack.calls("nvmlDeviceResetGpuLockedClocks") > 0, "the reset has begun")
    home.wait_default()
    (set_call,) = [call for call in home.rack.set_history() if call.function.startswith(function)]
    assert set_call.arguments == (1005, 1005)  # the set came to its end first


def test_a_child_that_inherited_the_connection_does_not_keep_the_gpu(home: KeeperHome) -> None:
    fork = "import os; child = os.fork(); print(child, flush=True) if child else None"
    with holder(home, AMPERE, 1005, fork) as process:
        heir = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            home.wait_default()
            os.kill(heir, 0)  # still there, and so is its end of the socket
        finally:
            os.kill(heir, signal.SIGKILL)
    eventually(lambda: "has not renewed its lease" in home.text, "the keeper has said why")


def test_a_client_that_stood_still_loses_the_gpu_and_takes_it_again_when_it_wakes(home: KeeperHome) -> None:
    with holder(home, AMPERE, 1005) as process:
        process.send_signal(signal.SIGSTOP)
        home.wait_default()
        process.send_signal(signal.SIGCONT)
        eventually(lambda: locked(home, 1005), "the client holds it again")
    home.wait_default()
    assert "(expired)" in home.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_keeper_that_is_told_to_end_gives_everything_back(home: KeeperHome, number: signal.Signals) -> None:
    with holder(home, AMPERE, 1005), holder(home, PASCAL, 862):
        home.tell(number)
        assert home.end() == 0
        assert home.default(AMPERE)
        assert home.default(PASCAL)
    assert home.markers() == []


def test_a_keeper_that_is_to_outlive_its_terminal_does(rack: Rack) -> None:
    with keeper_home(rack) as home:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        try:
            home.start()
        finally:
            signal.signal(signal.SIGHUP, before)
        home.tell(signal.SIGHUP)
        with holder(home, AMPERE, 1005):
            assert locked(home, 1005)
        home.wait_default()
        home.tell(signal.SIGTERM)
        assert home.end() == 0


def test_a_keeper_that_was_killed_gives_back_when_it_is_started_again(home: KeeperHome) -> None:
    with holder(home, AMPERE, 1005), holder(home, PASCAL, 862):
        home.kill()
    assert not home.default(AMPERE)
    assert not home.default(PASCAL)
    assert len(home.markers()) == 2
    home.start()
    home.wait_default(AMPERE)
    home.wait_default(PASCAL)
    eventually(lambda: home.markers() == [], "the markers are removed")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("function", ["nvmlDeviceSetGpuLockedClocks", "nvmlDeviceResetGpuLockedClocks"])
def test_a_keeper_killed_in_the_middle_of_a_call_is_cleaned_up_after(
    home: KeeperHome, function: str, when: str
) -> None:
    """Between marker and set, between set and answer, before the reset, and between reset and marker."""
    home.rack.slow(function, 0.5, when=when)
    words = [sys.executable, "-c", HOLDER, home.socket, home.rack.uuid(0), "1005", ""]
    with child(words) as process:
        if function.startswith("nvmlDeviceReset"):
            eventually(lambda: locked(home, 1005), "it is set")
            process.kill()
        eventually(lambda: home.rack.calls(function) > 0, "the call has begun")
        home.kill()
    assert len(home.markers()) == 1
    home.rack.clear_failures()
    home.start()
    home.wait_default()
    eventually(lambda: home.markers() == [], "the marker is removed")


def test_clients_find_a_keeper_that_was_restarted_and_set_again_what_they_had_set(home: KeeperHome) -> None:
    client = KeeperClient(home.socket, home.rack.uuid(AMPERE))
    client.set(GpuSetting(1005))
    home.kill()
    eventually(lambda: client.trouble != "", "the client notices")
    home.start()
    eventually(lambda: locked(home, 1005) and client.trouble == "", "the client holds it again")
    client.close()
    home.wait_default()


def test_restoring_that_fails_is_tried_until_it_works_and_said_once(home: KeeperHome) -> None:
    home.rack.fail("nvmlDeviceResetGpuLockedClocks", 999)
    with holder(home, AMPERE, 1005):
        pass
    eventually(lambda: home.rack.calls("nvmlDeviceResetGpuLockedClocks") >= 3, "it is tried again and again")
    assert home.markers() != []
    home.rack.clear_failures()
    home.wait_default()
    eventually(lambda: home.markers() == [], "the marker is removed")
    assert home.text.count("cannot give the GPU back") == 1


def test_a_keeper_that_cannot_give_back_says_so_and_leaves_the_marker(home: KeeperHome) -> None:
    with holder(home, AMPERE, 1005):
        home.rack.lose(AMPERE)
        home.tell(signal.SIGTERM)
        assert home.end() == 1
    assert len(home.markers()) == 1
    home.rack.recover(AMPERE)
    home.start()
    home.wait_default()


def test_a_gpu_that_is_slow_does_not_keep_another_from_being_given_back(home: KeeperHome) -> None:
    home.rack.slow("nvmlDeviceSetApplicationsClocks", 600.0)
    slow = RawClient(home.socket)
    slow.ask("hello", version=1)
    slow.ask("acquire", uuid=home.rack.uuid(PASCAL))
    axes = {"sm_clock_mhz": 862, "memory_clock_mhz": None, "power_limit_w": None}
    slow.send(json.dumps({"op": "set"} | axes).encode() + b"\n")
    eventually(lambda: home.rack.calls("nvmlDeviceSetApplicationsClocks") > 0, "one GPU is being set")
    with holder(home, AMPERE, 1005):
        assert locked(home, 1005)
    home.wait_default(AMPERE)
    slow.close()


def test_two_who_want_one_gpu_are_told_apart(home: KeeperHome) -> None:
    with holder(home, AMPERE, 1005) as process:
        second = RawClient(home.socket)
        second.ask("hello", version=1)
        answer = second.ask("acquire", uuid=home.rack.uuid(AMPERE))
        assert answer["code"] == "held"
        assert f"pid {process.pid}, uid {os.geteuid()}" in answer["error"]
        assert second.ask("acquire", uuid=home.rack.uuid(PASCAL))["ok"]
        second.close()
        assert locked(home, 1005)


def test_a_socket_that_was_left_behind_is_replaced(home: KeeperHome) -> None:
    home.kill()
    assert home.socket.is_socket()
    home.start()
    assert RawClient(home.socket).ask("hello", version=1)["ok"]


def test_a_second_keeper_is_refused(home: KeeperHome) -> None:
    for flags in ([], ["--state-dir", home.directory / "other"], ["--socket", home.directory / "other.sock"]):
        second = subprocess.run(
            [*home.command(), *map(str, flags)], capture_output=True, text=True, check=False, timeout=60
        )
        assert second.returncode == 2
        assert "another keeper is running" in second.stderr
    assert RawClient(home.socket).ask("hello", version=1)["ok"]


def test_a_file_that_is_no_socket_is_not_removed(rack: Rack) -> None:
    with keeper_home(rack) as home:
        home.socket.write_text("precious")
        home.launch()
        assert home.end() == 2
        assert home.socket.read_text() == "precious"
        assert "no socket" in home.text


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_state_directory_that_others_may_write_to_is_refused(rack: Rack, mode: int) -> None:
    with keeper_home(rack) as home:
        home.state_dir.mkdir()
        home.state_dir.chmod(mode)
        home.launch()
        assert home.end() == 2
        assert "nobody else may write there" in home.text


def test_a_state_directory_that_others_may_replace_is_refused(rack: Rack) -> None:
    with keeper_home(rack) as home:
        home.directory.chmod(0o777)
        home.launch()
        assert home.end() == 2
        assert "others could replace" in home.text


def test_a_socket_that_others_may_replace_is_refused(rack: Rack) -> None:
    with keeper_home(rack) as home:
        place = home.directory / "open"
        place.mkdir()
        place.chmod(0o777)
        with closing(KeeperHome(rack, home.directory, ["--socket", place / "keeper.sock"])) as second:
            second.launch()
            assert second.end() == 2
            assert "others could replace the socket" in second.text


def test_a_state_directory_that_is_a_link_is_refused(rack: Rack) -> None:
    with keeper_home(rack) as home:
        (home.directory / "real").mkdir()
        home.state_dir.symlink_to(home.directory / "real")
        home.launch()
        assert home.end() == 2
        assert "links are not followed" in home.text


def test_the_socket_is_for_owner_and_group_and_the_markers_for_the_owner(home: KeeperHome) -> None:
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(home.state_dir.stat().st_mode) == 0o700


@as_root
def test_the_socket_belongs_to_the_group_that_is_named(rack: Rack) -> None:
    with keeper_home(rack, "--group", str(NOBODY)) as home:
        home.start()
        assert home.socket.stat().st_gid == NOBODY


ASK_AS = """
import json, os, socket, sys
os.setgroups(json.loads(sys.argv[2]))
os.setgid(int(sys.argv[3]))
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
except OSError as error:
    sys.exit(json.dumps({"errno": error.errno}))
try:
    connection.sendall(b'{"op":"hello","version":1}\\n')
except BrokenPipeError:
    pass
sys.exit(connection.recv(65536).decode())
"""


def ask_as_nobody(home: KeeperHome, gid: int = NOBODY, groups: tuple[int, ...] = ()) -> dict[str, object]:
    """What a keeper answers to the greeting of another user."""
    program = [sys.executable, "-c", ASK_AS, home.socket, json.dumps(groups), str(gid)]
    asked = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    return json.loads(asked.stderr)


@as_root
def test_another_user_is_refused_though_the_socket_lets_him_in(rack: Rack) -> None:
    with keeper_home(rack, "--user", "0") as home:
        home.start()
        home.socket.chmod(0o666)
        with holder(home, AMPERE, 1005):
            answer = ask_as_nobody(home)
            assert answer["code"] == "peer"
            assert f"uid {NOBODY} may not set GPUs here" in answer["error"]
            assert locked(home, 1005)
        home.wait_default()
    assert f"uid {NOBODY} (peer)" in home.text


@as_root
def test_another_user_does_not_get_to_the_keeper_at_all(rack: Rack) -> None:
    with keeper_home(rack) as home:
        home.start()
        assert ask_as_nobody(home) == {"errno": 13}


@as_root
@pytest.mark.parametrize(("gid", "groups"), [(4242, ()), (NOBODY, (4242,))], ids=["own", "supplementary"])
def test_a_member_of_a_named_group_is_let_in(rack: Rack, gid: int, groups: tuple[int, ...]) -> None:
    with keeper_home(rack, "--group", "4242") as home:
        home.start()
        assert ask_as_nobody(home, gid, groups)["ok"]
        home.socket.chmod(0o666)
        assert ask_as_nobody(home)["code"] == "peer"


@as_root
def test_a_keeper_without_permission_says_so_and_changes_nothing(tmp_path: Path) -> None:
    with make_rack(tmp_path, make_card(), privileged_uid=1) as rack, keeper_home(rack) as home:
        home.start()
        client = RawClient(home.socket)
        client.ask("hello", version=1)
        client.ask("acquire", uuid=rack.uuid(0))
        answer = client.set(1005)
        assert (answer["code"], "NO_PERMISSION" in answer["error"]) == ("gpu", True)
        assert home.default()
        client.close()
        eventually(lambda: "NO_PERMISSION" in home.text, "it is logged")


def test_a_mig_gpu_is_refused(home: KeeperHome) -> None:
    home.rack.set_mig(AMPERE, enabled=True)
    client = RawClient(home.socket)
    client.ask("hello", version=1)
    answer = client.ask("acquire", uuid=home.rack.uuid(AMPERE))
    assert (answer["code"], "MIG" in answer["error"]) == ("gpu", True)


def test_a_gpu_that_is_not_listed_is_never_touched(rack: Rack) -> None:
    with keeper_home(rack, "--gpu", rack.uuid(AMPERE)) as home:
        home.start()
        client = RawClient(home.socket)
        client.ask("hello", version=1)
        assert client.ask("acquire", uuid=rack.uuid(PASCAL))["code"] == "unknown_gpu"
        client.close()
        with holder(home, AMPERE, 1005):
            home.tell(signal.SIGTERM)
            home.end()
    assert {call.card for call in rack.set_history()} == {AMPERE}


def test_without_nvml_it_does_not_start(rack: Rack) -> None:
    rack.fail("nvmlInit", 9)
    with keeper_home(rack) as home:
        home.launch()
        assert home.end() == 2
        assert "DRIVER_NOT_LOADED" in home.text


def test_it_tells_systemd_when_it_is_ready(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeper_home(rack) as home, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(home.directory / "notify"))
        systemd.settimeout(60.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(home.directory / "notify"))
        home.start()
        assert systemd.recv(100) == b"READY=1"
        home.tell(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"


def test_as_root_nothing_foreign_is_loaded_but_nvidia_ml_py(rack: Rack) -> None:
    for command in ("keeper", "reset"):
        program = (
            "import runpy, sys\n"
            f"sys.argv = ['boulton', {command!r}, '--help']\n"
            "try:\n    runpy.run_module('server.cli', run_name='__main__')\n"
            "except SystemExit:\n    pass\n"
            "files = {name: str(getattr(sys.modules[name], '__file__', '')) for name in sys.modules}\n"
            "found = {name.partition('.')[0] for name in files if 'site-packages' in files[name]}\n"
            "print(sorted(found))\n"
            "print(sorted(name for name in sys.modules if name.startswith('server.')))\n"
        )
        shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        foreign, ours = map(json.loads, shown.stdout.replace("'", '"').splitlines()[-2:])
        installing = ("__editable__", "_distutils_hack", "optimizer", "server", "bench", "protos")
        assert [name for name in foreign if not name.startswith(installing)] == ["pynvml"]
        assert ours == [
            "server.commands",
            f"server.commands.{command}",
            *(["server.logs"] * (command == "keeper")),
            "server.standard_streams",
        ]


def test_a_client_that_reads_nothing_is_not_served_for_ever(home: KeeperHome) -> None:
    deaf = RawClient(home.socket, timeout_s=1.0)
    deaf.hold(home.rack.uuid(AMPERE), 1005)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    deaf.socket.setblocking(False)
    sent, give_up_s = 0, time.monotonic() + 30.0
    while time.monotonic() < give_up_s:
        try:
            sent += deaf.socket.send(b'{"op":"renew"}\n' * 100)
        except BlockingIOError:
            if home.default():
                break
    home.wait_default()
    other = RawClient(home.socket)
    assert other.ask("hello", version=1)["ok"]
    deaf.close()
