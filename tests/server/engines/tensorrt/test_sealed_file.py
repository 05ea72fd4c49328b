from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.engines.tensorrt.sealed_file import NotSealed, read_sealed, write_sealed
from server.errors import EngineError

HEADER = {"GPU": "NVIDIA H200", "batches": "1,8"}
PAYLOAD = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "kept.plan"
    write_sealed(path, HEADER, PAYLOAD)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    assert read_sealed(path, HEADER) == PAYLOAD
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_in_one_step(path: Path) -> None:
    write_sealed(path, HEADER, b"new")
    assert read_sealed(path, HEADER) == b"new"


def test_a_missing_file_is_no_bad_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_sealed(path.with_name("other"), HEADER)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-1], r"is cut: it holds 10239 of 10240 bytes"),
        (lambda content: content + b"x", r"is cut: it holds 10241 of 10240 bytes"),
        (lambda content: content[:-9] + b"x" + content[-8:], r"damaged: its checksum does not match"),
        (lambda content: b"ftrt" + content[4:], r"was not written by Boulton"),
        (lambda _: b"", r"was not written by Boulton"),
        (lambda content: content[:40], r"damaged: its header cannot be read"),
        (lambda content: content[:22] + b"\xff\xff\xff\xff" + content[26:], r"damaged: its header"),
        (lambda content: content.replace(b'"bytes"', b'"bites"', 1), r"damaged: its header"),
    ],
)
def test_a_cut_or_damaged_or_foreign_file_is_refused(
    path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NotSealed, match=reason):
        read_sealed(path, HEADER)


def test_every_cut_is_noticed(path: Path) -> None:
    write_sealed(path, HEADER, b"short")
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(NotSealed):
            read_sealed(path, HEADER)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({**HEADER, "GPU": "Tesla V100"}, r"was made for GPU 'NVIDIA H200', not 'Tesla V100'"),
        ({"GPU": "NVIDIA H200"}, r"was made for batches '1,8', not None"),
        ({**HEADER, "driver": "580"}, r"was made for driver None, not '580'"),
    ],
)
def test_a_file_made_for_something_else_is_refused(path: Path, wanted: dict[str, str], reason: str) -> None:
    with pytest.raises(NotSealed, match=reason):
        read_sealed(path, wanted)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(NotSealed, match="can be written by others"):
        read_sealed(path, HEADER)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(NotSealed, match="owner 12345"):
        read_sealed(path, HEADER)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"file/x.plan cannot be written"):
        write_sealed(tmp_path / "file" / "x.plan", HEADER, b"")


def test_a_directory_in_its_place_is_no_file(path: Path) -> None:
    path.unlink()
    path.mkdir()
    with pytest.raises(NotSealed, match="cannot be read"):
        read_sealed(path, HEADER)
