"""Memory of other processes: what is asked of libcuda, of a real library in C with the same signatures."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from server.engines.cuda.ipc import IpcLibrary
from server.errors import EngineError

# One allocation of 1 MiB at 0x7f0000000000; its handle is 64 bytes that count from 1, the last one being 64.
LIBRARY = r"""
#include <stddef.h>
#include <stdint.h>
typedef struct { unsigned char reserved[64]; } handle;
int opened, closed, range_fails;
int cuIpcOpenMemHandle_v2(uint64_t *address, handle given, unsigned flags) {
    for (int i = 0; i < 64; i++) if (given.reserved[i] != (unsigned char)(i % 8 ? i + 1 : 0)) return 1;
    if (flags != 1) return 2;
    opened++;
    *address = 0x7f0000000100;
    return 0;
}
int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t address) {
    if (range_fails) return 3;
    if (address != 0x7f0000000100) return 4;
    *base = 0x7f0000000000;
    *size = 1 << 20;
    return 0;
}
int cuIpcCloseMemHandle(uint64_t address) {
    if (address != 0x7f0000000100) return 5;
    closed++;
    return 0;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 1 ? "invalid argument" : "other";
    return 0;
}
"""
HANDLE = bytes(i + 1 if i % 8 else 0 for i in range(64))  # zeros within, as in real ones


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "cuda.c").write_text(LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "cuda.so", folder / "cuda.c"], check=True)
    return folder / "cuda.so"


@pytest.fixture
def driver(built: Path) -> ctypes.CDLL:
    driver = ctypes.CDLL(str(built))
    for name in ("opened", "closed", "range_fails"):
        ctypes.c_int.in_dll(driver, name).value = 0
    return driver


def count(driver: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(driver, name).value


def test_a_handle_is_mapped_measured_and_let_go_of_once(driver: ctypes.CDLL) -> None:
    memory = IpcLibrary(driver).open(HANDLE)
    assert memory.address == 0x7F0000000100
    assert memory.size == (1 << 20) - 0x100  # to the end of the block that it lies in
    memory.close()
    memory.close()
    assert (count(driver, "opened"), count(driver, "closed")) == (1, 1)


def test_a_handle_that_the_driver_refuses_says_why(driver: ctypes.CDLL) -> None:
    with pytest.raises(EngineError, match=r"cuIpcOpenMemHandle_v2 failed: invalid argument \(1\)"):
        IpcLibrary(driver).open(bytes(64))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_handle_of_another_length_never_reaches_the_driver(driver: ctypes.CDLL, size: int) -> None:
    with pytest.raises(EngineError, match=f"has 64 bytes, got {size}"):
        IpcLibrary(driver).open(bytes(size))
    assert count(driver, "opened") == 0


def test_memory_that_cannot_be_measured_is_not_kept(driver: ctypes.CDLL) -> None:
    ctypes.c_int.in_dll(driver, "range_fails").value = 1
    with pytest.raises(EngineError, match="cuMemGetAddressRange_v2 failed"):
        IpcLibrary(driver).open(HANDLE)
    assert (count(driver, "opened"), count(driver, "closed")) == (1, 1)


def test_without_a_driver_nothing_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(EngineError, match=r"cannot be loaded: libcuda.so.1"):
        IpcLibrary().open(HANDLE)
