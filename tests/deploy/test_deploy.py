"""The units and the containers' command lines: our own parsers accept them, and they keep their promises."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from keeper_process import KeeperHome, RawClient, keeper_home
from nvml_rack import make_card, make_rack

from optimizer.devices.keeper.config import SOCKET, STATE_DIR, KeeperConfig
from optimizer.devices.keeper.service import STOP_WITHIN_S
from server.cli import find_commands
from server.commands import keeper as keeper_command
from server.config import Settings, settings_from

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KEEPER_UNIT = DEPLOY / "systemd" / "boulton-keeper.service"
DAEMON_UNIT = DEPLOY / "systemd" / "boulton.service"
COMPOSE = DEPLOY / "containers" / "compose.yaml"
UID = 10001


def unit(path: Path) -> dict[str, list[str]]:
    """Every setting of a unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def service(name: str) -> str:
    """A service's part of the compose file."""
    (part,) = re.findall(rf"^  {name}:\n((?:    .*\n|\n)*)", COMPOSE.read_text(encoding="utf-8"), re.M)
    return str(part)


def command_lines() -> dict[str, list[str]]:
    """Every command line in the files, without `boulton` itself."""
    found = {}
    for path in (KEEPER_UNIT, DAEMON_UNIT):
        (line,) = unit(path)["ExecStart"]
        program, *words = shlex.split(line)
        assert program == "/opt/boulton/bin/boulton"
        found[path.name] = words
    for name in ("keeper", "daemon"):
        (words_text,) = re.findall(r"^    command: (\[.*\])$", service(name), re.M)
        found[f"compose {name}"] = json.loads(words_text)
    text = (DEPLOY / "containers.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for number, line in enumerate(re.findall(r"podman run .* boulton ((?:keeper|serve) .*)$", text, re.M)):
        found[f"podman {number}"] = shlex.split(line)
    return found


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    importlib.import_module(find_commands()[words[0]]).add_arguments(parser)
    return parser.parse_args(words[1:])


@pytest.fixture
def keeper_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration that is shipped, on a machine that has the user it names."""
    user = pwd.struct_passwd(("boulton", "x", UID, UID, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwnam", {"boulton": user}.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", {UID: user}.__getitem__)
    installed = tmp_path / "installed.toml"  # as `install -m 0644` does it
    installed.write_bytes((DEPLOY / "keeper.toml").read_bytes())
    installed.chmod(0o644)
    return installed


def test_there_is_a_keeper_and_a_daemon_for_each_way() -> None:
    starts = [words[0] for words in command_lines().values()]
    assert sorted(starts) == ["keeper"] * 3 + ["serve"] * 3


@pytest.mark.parametrize("name", command_lines())
def test_every_command_line_is_accepted(name: str, keeper_toml: Path) -> None:
    words = command_lines()[name]
    arguments = parsed(words)
    if words[0] == "keeper":
        assert arguments.config == Path("/etc/boulton/keeper.toml")
        arguments.config = keeper_toml
        config: KeeperConfig = keeper_command.config_from(arguments)
        assert (config.socket, config.state_dir) == (SOCKET, STATE_DIR)
    else:
        settings: Settings = settings_from(arguments)
        assert settings.control
        assert (settings.keeper_socket or SOCKET) == SOCKET


def test_the_shipped_configuration_names_only_the_user_and_no_real_gpu(keeper_toml: Path) -> None:
    config = keeper_command.config_from(parsed(["keeper", "--config", str(keeper_toml)]))
    assert config.policy.users == {UID}
    assert config.policy.groups == frozenset()
    assert config.socket_group == UID
    assert list(config.gpus) == ["GPU-00000000-0000-0000-0000-000000000000"]


def test_what_the_configuration_leaves_as_a_comment_is_accepted_too(
    keeper_toml: Path, tmp_path: Path
) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", keeper_toml.read_text(encoding="utf-8"), flags=re.M)
    text = text.replace('groups = ["gpu-tuners"]', "groups = [4242]")
    (tmp_path / "keeper.toml").write_text(text)
    config = keeper_command.config_from(parsed(["keeper", "--config", str(tmp_path / "keeper.toml")]))
    (permit,) = config.gpus.values()
    assert permit.sm_clock_mhz
    assert permit.power_limit_w
    assert permit.memory_clocks_mhz
    defaults = KeeperConfig(gpus=config.gpus)
    assert (config.socket, config.state_dir, config.lease_s) == (
        defaults.socket,
        defaults.state_dir,
        defaults.lease_s,
    )


def test_the_keepers_unit_keeps_the_markers_and_gives_it_time() -> None:
    found = unit(KEEPER_UNIT)
    assert SOCKET.parent == STATE_DIR.parent == Path("/run", *found["RuntimeDirectory"])
    assert found["RuntimeDirectoryPreserve"] == ["yes"]
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert float(found["TimeoutStopSec"][0].removesuffix("s")) > STOP_WITHIN_S
    assert found["Group"] == unit(DAEMON_UNIT)["Group"] == ["boulton"]


def test_the_daemon_comes_back_however_long_its_gpu_is_away() -> None:
    found = unit(DAEMON_UNIT)
    assert found["Restart"] == ["on-failure"]
    assert found["StartLimitIntervalSec"] == ["0"]


def test_only_the_keeper_has_a_capability_and_it_has_one() -> None:
    assert unit(KEEPER_UNIT)["CapabilityBoundingSet"] == ["CAP_SYS_ADMIN"]
    assert unit(DAEMON_UNIT)["CapabilityBoundingSet"] == [""]
    assert unit(DAEMON_UNIT)["User"] == ["boulton"]
    assert "cap_add: [SYS_ADMIN]" in service("keeper")
    assert "cap_add" not in service("daemon")
    assert service("keeper").count("cap_drop: [ALL]") == service("daemon").count("cap_drop: [ALL]") == 1
    assert "privileged" not in COMPOSE.read_text(encoding="utf-8")


def test_the_containers_share_the_directory_of_socket_and_markers_with_the_machine() -> None:
    assert f"- {SOCKET.parent}:{SOCKET.parent}\n" in service("keeper")
    assert f"- {SOCKET.parent}:{SOCKET.parent}:ro\n" in service("daemon")


systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def installed(tmp_path: Path, original: Path) -> Path:
    """A copy of a unit whose program exists."""
    program = Path(sys.executable).with_name("boulton")
    copy = tmp_path / original.name
    copy.write_text(
        original.read_text(encoding="utf-8").replace("/opt/boulton/bin/boulton", str(program)),
        encoding="utf-8",
    )
    return copy


@systemd_analyze
@pytest.mark.parametrize("original", [KEEPER_UNIT, DAEMON_UNIT], ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong(tmp_path: Path, original: Path) -> None:
    for path in (KEEPER_UNIT, DAEMON_UNIT):
        installed(tmp_path, path)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / original.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@systemd_analyze
@pytest.mark.parametrize(
    ("original", "tenths"), [(KEEPER_UNIT, 15), (DAEMON_UNIT, 20)], ids=["keeper", "daemon"]
)
def test_systemd_finds_little_exposed(tmp_path: Path, original: Path, tenths: int) -> None:
    asked = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={tenths}"]
    judged = subprocess.run(
        [*asked, installed(tmp_path, original)], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stdout[-200:]


class Confined(KeeperHome):
    """A keeper that is root with one capability, in the daemon's group, as the unit starts it."""

    def command(self) -> list[str]:
        rights = ["--bounding-set=-all,+sys_admin", "--inh-caps=-all,+sys_admin", "--no-new-privs"]
        return ["setpriv", *rights, f"--regid={UID}", "--clear-groups", *super().command()]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights, which only root has")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_one_capability_is_enough(tmp_path: Path) -> None:
    with make_rack(tmp_path, make_card()) as rack, keeper_home(rack) as directory:
        os.chown(directory.directory, 0, UID)
        directory.directory.chmod(0o750)
        home = Confined(rack, directory.directory, ["--user", "0", "--group", str(UID)])
        try:
            home.start()
            assert (home.socket.stat().st_uid, home.socket.stat().st_gid) == (0, UID)
            client = RawClient(home.socket)
            client.hold(rack.uuid(0), 1005)
            assert rack.card(0).locked_sm_mhz == (1005, 1005)
            client.close()
            home.wait_default()
        finally:
            home.close()
