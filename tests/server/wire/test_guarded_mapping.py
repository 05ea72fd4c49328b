from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.engines.engine import Array
from server.wire.guarded_mapping import Mapping, TruncationGuard
from server.wire.outside_memory import LARGE_COPY_BYTES

NBYTES = 4 << 20

PRELUDE = """
import ctypes, logging, os, resource, signal, sys, threading
from server.wire.guarded_mapping import Mapping, TruncationGuard

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
guard = TruncationGuard()
assert guard.start()
file = open(sys.argv[1], "r+b")
mapping = Mapping(file.fileno(), 8192)
file.truncate(0)

def read(kind):
    copy = kind(None).memcpy
    copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    copy(ctypes.addressof(ctypes.create_string_buffer(8192)), mapping.address, 8192)
"""
ELSEWHERE = {
    "by the holder of the interpreter lock": "read(ctypes.PyDLL)",
    "by somebody else": "read(ctypes.CDLL)",
    "in another thread": """
thread = threading.Thread(target=read, args=(ctypes.CDLL,))
thread.start()
thread.join()
""",
    "sent by somebody": "os.kill(os.getpid(), signal.SIGBUS)",
    "that cannot be mended": """
import numpy as np
def fail(): raise OSError("no memory")
Mapping.give_up = lambda self: fail()
guard.copy(mapping, 0, np.empty(8192, np.uint8))
""",
}


@pytest.fixture
def content() -> Array:
    return np.random.default_rng(0).integers(0, 256, NBYTES, np.uint8)


@pytest.fixture
def file(tmp_path: Path, content: Array) -> Iterator[int]:
    path = tmp_path / "object"
    path.write_bytes(content.tobytes())
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def guard() -> Iterator[TruncationGuard]:
    guard = TruncationGuard()
    assert not guard.protects
    assert guard.start()
    assert guard.protects
    yield guard
    guard.stop()
    guard.stop()
    assert not guard.protects


def copied(guard: TruncationGuard, mapping: Mapping, offset: int, nbytes: int) -> Array | None:
    target = np.full(nbytes, 7, np.uint8)
    return target if guard.copy(mapping, offset, target) else None


@pytest.mark.parametrize("offset", [0, 1, 4096, 100_001])
def test_it_copies_what_is_there(guard: TruncationGuard, file: int, content: Array, offset: int) -> None:
    mapping = Mapping(file, NBYTES)
    np.testing.assert_array_equal(copied(guard, mapping, offset, NBYTES - offset), content[offset:])
    assert copied(guard, mapping, offset, NBYTES - offset + 1) is None
    assert not mapping.lost


@pytest.mark.parametrize("nbytes", [LARGE_COPY_BYTES, NBYTES], ids=["keeping the lock", "letting go of it"])
@pytest.mark.parametrize("left", [0, 4096, LARGE_COPY_BYTES // 2, LARGE_COPY_BYTES - 4096])
def test_what_the_file_has_lost_is_not_copied_and_the_process_lives(
    guard: TruncationGuard, file: int, content: Array, left: int, nbytes: int
) -> None:
    mapping = Mapping(file, NBYTES)
    os.truncate(file, left)
    assert copied(guard, mapping, 0, nbytes) is None
    assert mapping.lost
    assert copied(guard, mapping, 0, nbytes) is None
    os.truncate(file, NBYTES)
    found = copied(guard, Mapping(file, NBYTES), 0, nbytes)
    assert found is not None
    np.testing.assert_array_equal(found[:left], content[:left])
    assert not found[left:].any()


@pytest.mark.parametrize("nbytes", [LARGE_COPY_BYTES, NBYTES], ids=["keeping the lock", "letting go of it"])
def test_several_threads_that_copy_while_the_file_changes(
    guard: TruncationGuard, file: int, content: Array, nbytes: int
) -> None:
    outcomes: set[bool] = set()
    over = threading.Event()
    shared = [Mapping(file, NBYTES)]  # several copies of one mapping at a time

    def copy_again_and_again() -> None:
        while not over.is_set():
            mapping = shared[0]
            if mapping.lost:
                mapping = shared[0] = Mapping(file, NBYTES)
            found = copied(guard, mapping, 0, nbytes)
            outcomes.add(found is not None)
            if found is not None:
                np.testing.assert_array_equal(found[: nbytes // 2], content[: nbytes // 2])

    with ThreadPoolExecutor(3) as pool:
        copying = [pool.submit(copy_again_and_again) for _ in range(3)]
        deadline_s = time.monotonic() + 60
        while outcomes != {True, False} and time.monotonic() < deadline_s:
            os.truncate(file, nbytes // 2)
            time.sleep(0.002)
            os.truncate(file, NBYTES)
            time.sleep(0.002)
        over.set()
        for each in copying:
            each.result()
    assert outcomes == {True, False}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_a_bus_error_elsewhere_ends_the_process_as_ever(tmp_path: Path, how: str) -> None:
    (tmp_path / "object").write_bytes(bytes(8192))
    code = PRELUDE + ELSEWHERE[how] + '\nprint("still there")'
    command = [sys.executable, "-c", code, str(tmp_path / "object")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGBUS, done.stderr
    assert "still there" not in done.stdout


def test_signals_are_as_before_when_it_is_over() -> None:
    heard = []
    before = signal.signal(signal.SIGBUS, lambda *_: heard.append(1))
    try:
        guard = TruncationGuard()
        guard.start()
        guard.stop()
        signal.raise_signal(signal.SIGBUS)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGBUS, before)


def test_other_systems_are_not_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    guard = TruncationGuard()
    assert not guard.start()
    assert not guard.protects


def test_what_cannot_be_mapped_is_an_error(file: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Mapping(file, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(1 << 20, 4096)
