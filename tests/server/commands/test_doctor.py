"""`boulton doctor` as a process of its own, on simulated cards and without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from keeper_process import KeeperHome, keeper_home
from nvml_rack import Rack, make_card, make_rack, rack_env

SM_CLOCKS = "705-1005"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    with make_rack(tmp_path, make_card("hopper"), make_card("pascal", 1)) as rack:
        yield rack


def doctor(rack: Rack | None, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = (rack_env(rack) if rack else {**os.environ}) | {"COLUMNS": "300"} | environment
    command = [sys.executable, "-m", "server.cli", "doctor", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def gaps(done: subprocess.CompletedProcess[str], place: int = 0) -> dict[str, str]:
    """What is missing, and why, by `--json`."""
    items = json.loads(done.stdout)["gpus"][place]["capabilities"]
    return {item["name"]: item["detail"] for item in items if not item["available"]}


def row(text: str, capability: str) -> list[str]:
    """A row of the table for a capability."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {capability} ")]
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_the_table_says_what_is_there_and_what_to_do(rack: Rack) -> None:
    rack.set_mig(0, enabled=True)
    done = doctor(rack, "--gpu", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "NVIDIA driver 580.0-standin" in done.stdout
    assert "its GPUs are simulated, and so is every figure" in done.stdout
    assert f"GPU 0: Stand-in H100 NVL {rack.uuid(0)}" in done.stdout
    assert row(done.stdout, "memory clocks") == ["memory clocks", "yes", "1593, 2619 MHz", ""]
    _, there, found, remedy = row(done.stdout, "whole GPU (no MIG)")
    assert (there, found) == ("no", "MIG is enabled")
    assert "nvidia-smi -mig 0" in remedy


def test_all_gpus_are_shown_and_nothing_is_set(rack: Rack) -> None:
    done = doctor(rack)
    assert done.returncode == 0
    assert all(rack.uuid(place) in done.stdout for place in range(2))
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in done.stdout
    assert not rack.set_history()
    assert rack.card(0).is_default
    assert rack.card(1).is_default


def test_json(rack: Rack) -> None:
    done = doctor(rack, "--json")
    diagnosis = json.loads(done.stdout)
    assert diagnosis["simulated"] is True
    assert [gpu["uuid"] for gpu in diagnosis["gpus"]] == [rack.uuid(0), rack.uuid(1)]
    assert set(gaps(done, 1)) >= {"energy counter", "locked clocks"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_rights_is_told_of_the_keeper() -> None:
    # Imports come first: the interpreter may lie where that user cannot look.
    script = (
        "import argparse, os, sys; from server.commands import doctor; parser = argparse.ArgumentParser();"
        "doctor.add_arguments(parser); arguments = parser.parse_args(['--json']);"
        "os.setgid(65534); os.setuid(65534); sys.exit(doctor.run(arguments))"
    )
    with TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        with make_rack(Path(directory)) as rack:
            Path(rack.path).chmod(0o666)
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, env=rack_env(rack), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert gaps(done) == {
        "memory clocks": "1215 MHz: no choice",
        "permission to set": "user 65534 may read only",
    }


def test_hidden_gpus_are_shown_with_a_warning(rack: Rack) -> None:
    done = doctor(rack, CUDA_VISIBLE_DEVICES="1")
    assert f"CUDA_VISIBLE_DEVICES=1 shows {rack.uuid(1)} to CUDA" in done.stdout
    assert rack.uuid(0) in done.stdout


def test_one_visible_gpu_is_counted_as_the_daemon_counts(rack: Rack) -> None:
    done = doctor(rack, "--gpu", "0", "--json", CUDA_VISIBLE_DEVICES="1")
    assert [gpu["uuid"] for gpu in json.loads(done.stdout)["gpus"]] == [rack.uuid(1)]


def test_a_mig_instance_is_shown_as_a_warning(rack: Rack) -> None:
    done = doctor(rack, CUDA_VISIBLE_DEVICES="MIG-1234")
    assert done.returncode == 0
    assert "CUDA_VISIBLE_DEVICES names MIG-1234: a MIG instance shares clock" in done.stdout


def test_a_gpu_that_is_not_there(rack: Rack) -> None:
    done = doctor(rack, "--gpu", "7")
    assert done.returncode == 2
    assert "no GPU 7 here; choose of 0 (GPU-" in done.stderr


def test_a_lost_gpu_beside_one_that_works(rack: Rack) -> None:
    rack.lose(0)
    done = doctor(rack)
    assert done.returncode == 0
    assert "GPU 0 cannot be used: " in done.stdout
    assert "GPU_IS_LOST" in done.stdout
    rack.lose(1)
    assert doctor(rack).returncode == 1


def test_a_gpu_of_which_nothing_can_be_read(rack: Rack) -> None:
    rack.fail("*", 999, card=0)
    done = doctor(rack, "--json")
    assert done.returncode == 0
    assert "UNKNOWN" in json.loads(done.stdout)["gpus"][0]["why_not"]


@pytest.mark.parametrize(
    ("code", "advice"), [(9, "modprobe nvidia"), (12, "install the NVIDIA driver"), (18, "restart")]
)
def test_no_nvml(rack: Rack, code: int, advice: str) -> None:
    rack.fail("nvmlInit", code)
    done = doctor(rack)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no NVIDIA GPU can be used here" in done.stderr
    assert advice in done.stderr
    done = doctor(rack, "--json")
    assert done.returncode == 1
    diagnosis = json.loads(done.stdout)
    assert diagnosis["gpus"] == []
    assert advice in diagnosis["error"]


@contextmanager
def running_keeper(rack: Rack, *flags: str) -> Iterator[KeeperHome]:
    with keeper_home(rack, *flags) as home:
        home.start()
        yield home


def test_a_keeper_that_answers_says_what_it_permits(rack: Rack) -> None:
    with running_keeper(rack, "--gpu", f"{rack.uuid(0)}:{SM_CLOCKS}") as home:
        done = doctor(rack, "--keeper-socket", home.socket)
        both = doctor(rack, "--keeper-socket", home.socket, "--json")
        assert not home.markers()
    assert "permits 705 to 1005 MHz" in done.stdout
    assert "keeper" not in gaps(both, 0)
    assert rack.uuid(1) in gaps(both, 1)["keeper"]  # not on its list
    assert not rack.set_history()


def test_what_a_keeper_refuses_is_laid_to_its_configuration_only_where_that_is_why(rack: Rack) -> None:
    rack.set_mig(0, True)
    with running_keeper(rack, "--gpu", rack.uuid(0)) as home:
        done = doctor(rack, "--keeper-socket", home.socket, "--json")
    remedies = [
        next(item["remedy"] for item in gpu["capabilities"] if item["name"] == "keeper")
        for gpu in json.loads(done.stdout)["gpus"]
    ]
    assert ["configuration" in remedy for remedy in remedies] == [False, True]


def test_a_keeper_that_is_not_there(rack: Rack, tmp_path: Path) -> None:
    done = doctor(rack, "--json", "--keeper-socket", tmp_path / "none.sock")
    assert done.returncode == 0
    assert "is `boulton keeper` running" in gaps(done)["keeper"]
