from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from nvml_rack import library_directory

from bench.standin import build as building
from bench.standin.build import LIBRARY, BuildError, build


def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    strict = ["-Werror", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wno-sign-conversion"]
    assert (build(tmp_path, strict) / LIBRARY).exists()


def test_the_directory_is_made_and_holds_the_library_alone(tmp_path: Path) -> None:
    directory = build(tmp_path / "a" / "b")
    assert [path.name for path in directory.iterdir()] == [LIBRARY]


def test_a_library_newer_than_its_sources_is_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    build(tmp_path)


def test_a_missing_compiler_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BuildError, match=r"no C compiler 'no-such-compiler'.*install one"):
        build(tmp_path)


def test_what_the_compiler_says_is_passed_on_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "sources"
    broken.mkdir()
    (broken / "broken.c").write_text("this is not C\n")
    monkeypatch.setattr(building, "SOURCES", broken)
    with pytest.raises(BuildError, match=r"broken\.c:1"):
        build(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_only_the_interface_is_exported() -> None:
    symbols = _exported(library_directory() / LIBRARY)
    assert {"nvmlInitWithFlags", "nvmlDeviceSetGpuLockedClocks", "standinRunBatch"} <= symbols
    assert all(symbol.startswith(("nvml", "standin")) for symbol in symbols)


def test_every_function_that_can_be_scripted_is_exported() -> None:
    library = ctypes.CDLL(str(library_directory() / LIBRARY))
    library.standinFunction.restype = ctypes.c_char_p
    names = []
    while (name := library.standinFunction(len(names))) is not None:
        names.append(name.decode())
    listed = _exported(library_directory() / LIBRARY)
    for name in names:
        assert name.startswith("field:") or any(symbol.startswith(name) for symbol in listed), name


def _exported(library: Path) -> set[str]:
    command = ["nm", "-D", "--defined-only", str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}
