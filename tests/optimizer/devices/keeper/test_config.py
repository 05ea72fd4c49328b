from __future__ import annotations

import argparse
import grp
import os
import pwd
from pathlib import Path

import pytest

from optimizer.devices.keeper.config import KeeperConfig, check_private, load_config, parse_gpu
from optimizer.devices.keeper.peers import Peer, PeerPolicy, own_policy
from optimizer.devices.keeper.permits import Permit
from optimizer.settings_table import SettingsError
from server.commands.keeper import add_arguments, config_from

UUID = "GPU-57a4d100-0000-4000-8000-000000000000"
OTHER = "GPU-57a4d101-0000-4000-8000-000000000001"
WHOLE = f"""
socket = "/run/boulton/keeper.sock"
state_dir = "/run/boulton/keeper"
lease_s = 2
users = ["root", 4242]
groups = [4343]
socket_group = 4444
[[gpu]]
uuid = "{UUID}"
sm_clock_mhz = [510, 1410]
power_limit_w = [150, 250.5]
memory_clocks_mhz = [1215, 810]
[[gpu]]
uuid = "{OTHER}"
"""


def configured(tmp_path: Path, text: str | None, *flags: str) -> KeeperConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    if text is not None:
        (tmp_path / "keeper.toml").write_text(text)
        flags = ("--config", str(tmp_path / "keeper.toml"), *flags)
    return config_from(parser.parse_args(flags))


def test_a_file_says_everything(tmp_path: Path) -> None:
    found = configured(tmp_path, WHOLE)
    assert found == KeeperConfig(
        gpus={UUID: Permit((510, 1410), (150.0, 250.5), (810, 1215)), OTHER: Permit()},
        policy=PeerPolicy(frozenset({0, 4242}), frozenset({4343})),
        socket=Path("/run/boulton/keeper.sock"),
        socket_group=4444,
        state_dir=Path("/run/boulton/keeper"),
        lease_s=2.0,
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    flags = ["--socket", "/tmp/s", "--state-dir", "/tmp/d", "--lease-s", "3", "--gpu", f"{UUID}:600-900"]  # noqa: S108
    found = configured(tmp_path, WHOLE, *flags, "--user", "4545")
    assert (str(found.socket), str(found.state_dir), found.lease_s) == ("/tmp/s", "/tmp/d", 3.0)  # noqa: S108
    assert found.gpus == {UUID: Permit((600, 900))}
    assert found.policy == PeerPolicy(frozenset({4545}), frozenset())


def test_by_default_only_its_own_user_may_use_it(tmp_path: Path) -> None:
    found = configured(tmp_path, None, "--gpu", UUID)
    assert found.policy == own_policy() == PeerPolicy(frozenset({os.geteuid()}), frozenset())
    assert found.socket_group is None


def test_the_socket_opens_to_the_first_group_else_to_the_users_own(tmp_path: Path) -> None:
    assert configured(tmp_path, None, "--gpu", UUID, "--group", "5", "--group", "6").socket_group == 5
    name = pwd.getpwuid(os.geteuid()).pw_name
    found = configured(tmp_path, None, "--gpu", UUID, "--user", name)
    assert found.socket_group == pwd.getpwuid(os.geteuid()).pw_gid
    named = configured(tmp_path, None, "--gpu", UUID, "--group", grp.getgrgid(0).gr_name)
    assert named.policy == PeerPolicy(frozenset(), frozenset({0}))


@pytest.mark.parametrize("text", [None, "", "users = [0]", "gpu = []"])
def test_without_a_gpu_it_says_how_to_list_them(tmp_path: Path, text: str | None) -> None:
    with pytest.raises(SettingsError, match="`boulton doctor` lists"):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not valid TOML"),
        ("gpu = 3", r"expected tables \[\[gpu\]\]"),
        ("gpu = [3]", r"expected tables \[\[gpu\]\]"),
        ("[[gpu]]", "uuid is missing"),
        ('[[gpu]]\nuuid = "0"', "not the whole UUID"),
        ('[[gpu]]\nuuid = "GPU-../x"', "not the whole UUID"),
        (f'[[gpu]]\nuuid = "{UUID[:-1]}"', "not the whole UUID"),
        (f'[[gpu]]\nuuid = "{UUID}0"', "not the whole UUID"),
        (f'[[gpu]]\nuuid = "{UUID.lower().replace("a", "A")}"', "not the whole UUID"),
        (f'[[gpu]]\nuuid = "{UUID}"\n[[gpu]]\nuuid = "{UUID}"', "each GPU once"),
        (f'[[gpu]]\nuuid = "{UUID}"\nclock = 3', "unknown key 'clock'"),
        (f'[[gpu]]\nuuid = "{UUID}"\nsm_clock_mhz = [1410, 510]', "lowest, highest"),
        (f'[[gpu]]\nuuid = "{UUID}"\nsm_clock_mhz = [510]', "a list of 2 numbers"),
        (f'[[gpu]]\nuuid = "{UUID}"\npower_limit_w = 250', "a list of 2 numbers"),
        (f'[[gpu]]\nuuid = "{UUID}"\nmemory_clocks_mhz = ["x"]', "memory_clocks_mhz"),
        (f'uid = 3\n[[gpu]]\nuuid = "{UUID}"', "unknown key 'uid'"),
        (f'users = "root"\n[[gpu]]\nuuid = "{UUID}"', "a list of names or numbers"),
        (f'users = ["nobody-of-this-name"]\n[[gpu]]\nuuid = "{UUID}"', "there is no user"),
        (f'groups = ["nobody-of-this-name"]\n[[gpu]]\nuuid = "{UUID}"', "there is no group"),
        (f'lease_s = 0.1\n[[gpu]]\nuuid = "{UUID}"', "lease_s must be 0.5 to 60"),
        (f'lease_s = 61\n[[gpu]]\nuuid = "{UUID}"', "lease_s must be 0.5 to 60"),
        (f'socket = "/{"x" * 120}"\n[[gpu]]\nuuid = "{UUID}"', "longer than 107 bytes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        configured(tmp_path, text)


@pytest.mark.parametrize("text", ["GPU-1:", "GPU-1:5", "GPU-1:9-5", "GPU-1:0-5", "GPU-1:a-b", "GPU-1:-5-9"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="UUID:LOW-HIGH"):
        parse_gpu(text)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(tmp_path / "keeper.toml")


def test_users_and_groups_are_either_enough() -> None:
    policy = PeerPolicy(frozenset({7}), frozenset({8, 9}))
    assert policy.allows(Peer(1, 7, frozenset({1})))
    assert policy.allows(Peer(1, 3, frozenset({1, 9})))
    assert not policy.allows(Peer(1, 3, frozenset({1, 7})))
    assert not policy.allows(Peer(1, 8, frozenset({1})))
    assert not policy.allows(Peer(1, 0, frozenset({0})))
    assert str(policy) == "uid 7 and gid 8, 9"


@pytest.mark.parametrize(("mode", "private"), [(0o600, True), (0o644, True), (0o664, False), (0o646, False)])
def test_a_file_that_others_may_write_is_not_root_s(tmp_path: Path, mode: int, private: bool) -> None:
    path = tmp_path / "keeper.toml"
    path.write_text(WHOLE)
    path.chmod(mode)
    if private:
        check_private(path)
        return
    with pytest.raises(SettingsError, match=rf"with mode {mode:04o}, so others could have root set GPUs"):
        check_private(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_somebody_else_is_refused_by_a_keeper_that_runs_as_root(tmp_path: Path) -> None:
    path = tmp_path / "keeper.toml"
    path.write_text(WHOLE)
    os.chown(path, 65534, -1)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SettingsError, match="belongs to uid 65534"):
        config_from(parser.parse_args(["--config", str(path)]))
