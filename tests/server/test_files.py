from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.cli import main
from server.errors import ConfigError
from server.files import make_folder, write_whole


def test_a_folder_is_made_with_those_above_it_and_may_be_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out .*file/results cannot be made: Not a directory"):
        make_folder(tmp_path / "file" / "results", "--out")


def test_a_folder_of_somebody_else_is_refused_before_hours_of_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may write anywhere
    with pytest.raises(ConfigError, match="cannot be written to by this user"):
        make_folder(tmp_path, "--out")


@pytest.mark.parametrize("command", [["tournament", "--quick"], ["compare", "alexnet"]])
def test_a_command_whose_results_have_no_place_says_so_in_a_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*command, "--out", str(tmp_path / "file" / "results")]) == 2
    assert capsys.readouterr().err.startswith("boulton: --out")


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Files that end where a disk would be full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_leaves_the_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(path, "short")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        write_whole(path, "long" * 1000)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("state.json", "short")]
