from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from server.engines.engine import Array
from server.event_loop import run
from server.wire.guarded_mapping import Mapping, TruncationGuard

NBYTES = 4 << 20

ELSEWHERE = """
import asyncio, ctypes, mmap, os, resource, sys
from server.event_loop import run
from server.wire.guarded_mapping import Mapping, TruncationGuard

async def main():
    guard = TruncationGuard()
    assert guard.start()
    with open(sys.argv[1], "r+b") as file:
        mapping = Mapping(file.fileno(), 8192)
        file.truncate(0)
    read = ctypes.CDLL(None).memcpy
    read.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    await asyncio.to_thread(read, ctypes.addressof(ctypes.create_string_buffer(8192)), mapping.address, 8192)
    print("still there")

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
run(main())
"""


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


def guarded(use: Callable[[TruncationGuard], Awaitable[None]]) -> None:
    """Run with a guard, in the event loop that the daemon runs in."""

    async def main() -> None:
        guard = TruncationGuard()
        assert guard.start()
        try:
            await use(guard)
        finally:
            guard.stop()
        assert not guard.protects

    run(main())


def copied(guard: TruncationGuard, mapping: Mapping, offset: int, nbytes: int) -> Array | None:
    target = np.full(nbytes, 7, np.uint8)
    assert guard.protects
    return target if guard.copy(mapping, offset, target) else None


@pytest.mark.parametrize("offset", [0, 1, 4096, 100_001])
def test_it_copies_what_is_there(file: int, content: Array, offset: int) -> None:
    async def use(guard: TruncationGuard) -> None:
        mapping = Mapping(file, NBYTES)
        found = await asyncio.to_thread(copied, guard, mapping, offset, NBYTES - offset)
        np.testing.assert_array_equal(found, content[offset:])
        assert await asyncio.to_thread(copied, guard, mapping, offset, NBYTES - offset + 1) is None
        assert not mapping.lost

    guarded(use)


@pytest.mark.parametrize("left", [0, 4096, NBYTES // 2, NBYTES - 4096])
def test_what_the_file_has_lost_is_not_copied_and_the_process_lives(
    file: int, content: Array, left: int
) -> None:
    async def use(guard: TruncationGuard) -> None:
        mapping = Mapping(file, NBYTES)
        os.truncate(file, left)
        assert await asyncio.to_thread(copied, guard, mapping, 0, NBYTES) is None
        assert mapping.lost
        assert await asyncio.to_thread(copied, guard, mapping, 0, NBYTES) is None
        os.truncate(file, NBYTES)
        found = await asyncio.to_thread(copied, guard, Mapping(file, NBYTES), 0, NBYTES)
        assert found is not None
        np.testing.assert_array_equal(found[:left], content[:left])
        assert not found[left:].any()

    guarded(use)


def test_several_threads_that_copy_while_the_file_changes(file: int, content: Array) -> None:
    outcomes: set[bool] = set()

    def copy_again_and_again(guard: TruncationGuard, over: threading.Event) -> None:
        while not over.is_set():
            mapping = Mapping(file, NBYTES)
            found = copied(guard, mapping, 0, NBYTES)
            outcomes.add(found is not None)
            if found is not None:
                np.testing.assert_array_equal(found[: NBYTES // 2], content[: NBYTES // 2])

    async def use(guard: TruncationGuard) -> None:
        over = threading.Event()
        copying = [asyncio.to_thread(copy_again_and_again, guard, over) for _ in range(3)]
        gathered = asyncio.gather(*copying)
        async with asyncio.timeout(60):
            while outcomes != {True, False}:
                os.truncate(file, NBYTES // 2)
                await asyncio.sleep(0.002)
                os.truncate(file, NBYTES)
                await asyncio.sleep(0.002)
        over.set()
        await gathered

    guarded(use)


def test_the_event_loop_itself_is_not_protected() -> None:
    async def use(guard: TruncationGuard) -> None:
        assert not guard.protects
        assert await asyncio.to_thread(lambda: guard.protects)

    guarded(use)


def test_nobody_is_protected_by_a_loop_that_hears_no_signals() -> None:
    async def start() -> bool:
        guard = TruncationGuard()
        return guard.start() or guard.protects

    started: list[bool] = []
    thread = threading.Thread(target=lambda: started.append(asyncio.run(start())))
    thread.start()
    thread.join()
    assert started == [False]


def test_a_bus_error_elsewhere_ends_the_process_as_ever(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(bytes(8192))
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "object")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGBUS, done.stderr
    assert "still there" not in done.stdout


def test_what_cannot_be_mapped_is_an_error(file: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        Mapping(file, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(1 << 20, 4096)
