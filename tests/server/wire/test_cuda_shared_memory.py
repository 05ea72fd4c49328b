"""Regions on a simulated GPU (tests/services/fake_gpu.py)."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fake_gpu import FakeCuda

from server.errors import (
    AlreadyExists,
    CudaLost,
    EngineError,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    ResourceExhausted,
)
from server.wire.cuda_shared_memory import CudaSharedMemory
from server.wire.shared_memory import MAX_REGIONS
from server.wire.tensors import RegionSlice


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def lost() -> list[CudaLost]:
    return []


@pytest.fixture
def memory(cuda: FakeCuda, lost: list[CudaLost]) -> CudaSharedMemory:
    return CudaSharedMemory(lambda: cuda, lost.append)


def test_a_slice_is_where_the_client_put_it(cuda: FakeCuda, memory: CudaSharedMemory) -> None:
    handle, client = cuda.export(100)
    memory.register("io", handle, 0, 100)
    rows = memory.view(RegionSlice("io", 4, 48))
    assert (rows.address, rows.nbytes) == (client.address + 4, 48)
    shaped = rows.viewed((2, 3), np.dtype("f4"))
    assert (shaped.address, shaped.nbytes) == (client.address + 4, 24)
    last = shaped.rows(1, 1)
    assert (last.address, last.shape, last.dtype) == (client.address + 16, (1, 3), np.dtype("f4"))


def test_status_names_device_and_size(cuda: FakeCuda, memory: CudaSharedMemory) -> None:
    memory.register("a", cuda.export(10)[0], 0, 10)
    memory.register("b", cuda.export(20)[0], 0, 15)
    assert memory.status() == {"a": (0, 10), "b": (0, 15)}
    assert memory.status("b") == {"b": (0, 15)}
    with pytest.raises(NotFound, match="'c' is not registered"):
        memory.status("c")


def test_a_region_is_unmapped_at_once_when_nobody_uses_it(cuda: FakeCuda, memory: CudaSharedMemory) -> None:
    memory.register("io", cuda.export(10)[0], 0, 10)
    assert cuda.memory
    closed = memory.unregister("io")
    assert closed.done()
    assert not cuda.memory
    assert memory.unregister("io") is None


def test_a_region_in_use_is_unmapped_when_its_last_user_is_done(
    cuda: FakeCuda, memory: CudaSharedMemory
) -> None:
    memory.register("io", cuda.export(10)[0], 0, 10)
    rows = memory.view(RegionSlice("io", 0, 10))
    rows.memory.hold()
    rows.memory.hold()
    closed = memory.unregister("io")
    with pytest.raises(NotFound):
        memory.view(RegionSlice("io", 0, 10))
    rows.memory.release()
    assert not closed.done()
    assert cuda.memory
    rows.memory.release()
    assert closed.done()
    assert not cuda.memory


def test_two_names_for_one_memory(cuda: FakeCuda, memory: CudaSharedMemory) -> None:
    handle, _ = cuda.export(10)
    memory.register("a", handle, 0, 10)
    memory.register("b", handle, 0, 5)
    memory.unregister("a")
    assert memory.view(RegionSlice("b", 0, 5)).address in cuda.memory
    memory.close()
    assert not cuda.memory


@pytest.mark.parametrize(
    ("name", "handle", "device_id", "byte_size", "error", "words"),
    [
        ("", None, 0, 10, InvalidArgument, "needs a name of 1 to 1024 bytes"),
        ("n" * 1025, None, 0, 10, InvalidArgument, "needs a name"),
        ("taken", None, 0, 10, AlreadyExists, "registered already"),
        ("io", b"", 0, 10, InvalidArgument, "raw handle of 64 bytes .* got 0"),
        ("io", bytes(63), 0, 10, InvalidArgument, "got 63"),
        ("io", bytes(88), 0, 10, InvalidArgument, "got 88"),  # base64, as some clients' libraries hand it out
        ("io", bytes(64), 0, 10, InvalidArgument, "invalid argument .* cudaMalloc"),
        ("io", None, 1, 10, InvalidArgument, "device 1, which does not exist"),
        ("io", None, -1, 10, InvalidArgument, "device -1, which does not exist"),
        ("io", None, 2**62, 10, InvalidArgument, "does not exist"),
        ("io", None, 0, 0, InvalidArgument, "positive byte_size, got 0"),
        ("io", None, 0, 11, InvalidArgument, "byte_size of 11, but the memory has 10"),
        ("io", None, 0, 2**64 - 1, InvalidArgument, "but the memory has 10"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_leaves_nothing(
    cuda: FakeCuda,
    memory: CudaSharedMemory,
    name: str,
    handle: bytes | None,
    device_id: int,
    byte_size: int,
    error: type[RequestError],
    words: str,
) -> None:
    memory.register("taken", cuda.export(10)[0], 0, 10)
    given = cuda.export(10)[0] if handle is None else handle
    with pytest.raises(error, match=words):
        memory.register(name, given, device_id, byte_size)
    assert list(memory.status()) == ["taken"]
    assert len(cuda.memory) == 1
    memory.register("io", cuda.export(10)[0], 0, 10)


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (1, 10), (10, 1), (2**63 - 1, 2**63 - 1)])
def test_slices_past_the_end_are_refused(
    cuda: FakeCuda, memory: CudaSharedMemory, offset: int, size: int
) -> None:
    memory.register("io", cuda.export(10)[0], 0, 10)
    with pytest.raises(InvalidArgument, match="reach past the end of the shared memory region, which has 10"):
        memory.view(RegionSlice("io", offset, size))


def test_a_region_smaller_than_its_memory_ends_where_it_was_told(
    cuda: FakeCuda, memory: CudaSharedMemory
) -> None:
    memory.register("io", cuda.export(100)[0], 0, 10)
    with pytest.raises(InvalidArgument):
        memory.view(RegionSlice("io", 8, 4))


def test_the_number_of_regions_is_bounded(cuda: FakeCuda, memory: CudaSharedMemory) -> None:
    handle, _ = cuda.export(10)
    for number in range(MAX_REGIONS):
        memory.register(f"{number}", handle, 0, 10)
    with pytest.raises(ResourceExhausted, match=f"{MAX_REGIONS} regions"):
        memory.register("one more", handle, 0, 10)


def test_a_gpu_that_is_gone_is_told(cuda: FakeCuda, memory: CudaSharedMemory, lost: list[CudaLost]) -> None:
    handle, _ = cuda.export(10)
    cuda.broken = True
    with pytest.raises(Internal, match="failed for good"):
        memory.register("io", handle, 0, 10)
    assert len(lost) == 1


def test_a_gpu_that_cannot_be_opened_is_said() -> None:
    def missing() -> FakeCuda:
        raise EngineError("pycuda is not installed")

    with pytest.raises(Internal, match="CUDA shared memory cannot be used: pycuda is not installed"):
        CudaSharedMemory(missing).register("io", bytes(64), 0, 10)


def test_what_cannot_be_unmapped_is_logged(
    cuda: FakeCuda, memory: CudaSharedMemory, caplog: pytest.LogCaptureFixture
) -> None:
    memory.register("io", cuda.export(10)[0], 0, 10)
    cuda.failures.append("ipc_close")
    with caplog.at_level(logging.WARNING):
        closed = memory.unregister("io")
    assert closed.done()
    assert "could not be unmapped: ipc_close failed" in caplog.text
