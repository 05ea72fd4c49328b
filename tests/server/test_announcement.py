"""Telling that the server is ready, where that can be told and where not."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from daemon_process import FREE_PORTS, command, put_double, put_profile

from server.announcement import Announcement, withdraw, withdraw_own
from server.errors import ConfigError

READY = Announcement(host="::1", grpc_port=1, metrics_port=2, operator_port=3)


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--ready-file {tmp_path} cannot be removed: Is a directory"):
        withdraw(tmp_path)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        READY.write_to(tmp_path / "ready")
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_a_server_that_cannot_say_that_it_is_ready_serves_all_the_same(tmp_path: Path) -> None:
    flags = ("--engine", "simulated", "--gpu", put_profile(tmp_path, 1.0), "--state-dir", tmp_path / "state")
    words = command(*FREE_PORTS, "--repository", put_double(tmp_path / "repository"), *flags)
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(words, stdout=full, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            said = [next(line for line in process.stderr if "could not be said" in line)]
            process.terminate()
            said += process.stderr
            assert process.wait(60) == 0, said
            assert "ended" in said[-1]
        finally:
            process.kill()


def test_a_server_that_ends_leaves_the_announcement_of_its_successor(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    withdraw_own(file)
    for foreign in ('{"pid": 1}', "[]", "{"):
        file.write_text(foreign)
        withdraw_own(file)
        assert file.read_text() == foreign
    READY.write_to(file)
    withdraw_own(file)
    assert not file.exists()


def test_a_server_that_finds_its_port_in_use_leaves_the_announcement_of_the_other(tmp_path: Path) -> None:
    repository, file = put_double(tmp_path / "repository"), tmp_path / "ready.json"
    file.write_text("of another")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = ("--port", str(taken.getsockname()[1]), "--no-metrics", "--state-dir", tmp_path / "state")
        words = command("--repository", repository, "--ready-file", file, *port)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the port is in use" in done.stderr
    assert file.read_text() == "of another"
