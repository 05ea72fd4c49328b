from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from server.engines.engine import Array
from server.errors import AlreadyExists, InvalidArgument, NotFound, RequestError, ResourceExhausted
from server.wire.guarded_mapping import Mapping, TruncationGuard
from server.wire.shared_memory import MAX_REGIONS, SharedObject, SystemSharedMemory
from server.wire.tensors import RegionSlice

KEY = f"/boulton-test-{os.getpid()}"

TRITON_CLIENT = """
import sys
import numpy as np
from tritonclient.utils import shared_memory
region = shared_memory.create_shared_memory_region("r", sys.argv[1], 64)
shared_memory.set_shared_memory_region(region, [np.arange(16, dtype=np.float32)])
print("ready", flush=True)
sys.stdin.readline()
print(shared_memory.get_contents_as_numpy(region, np.float32, [16])[3], flush=True)
shared_memory.destroy_shared_memory_region(region)
"""


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def lowest_free_descriptor() -> int:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[SystemSharedMemory]:
    (tmp_path / "object").write_bytes(bytes(range(256)) * 32)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "object")
    os.mkfifo(tmp_path / "pipe")
    memory = SystemSharedMemory(tmp_path)
    yield memory
    memory.close()


def test_views_are_windows_of_the_object(memory: SystemSharedMemory, tmp_path: Path) -> None:
    memory.register("r", "/object", 5000, 100)
    view = memory.view(RegionSlice("r", 10, 4))
    assert view.read().tobytes() == (bytes(range(256)) * 32)[5010:5014]
    view.memory.write(view.offset, b"\1\2\3\4")
    assert (tmp_path / "object").read_bytes()[5010:5014] == b"\1\2\3\4"


def test_a_view_survives_its_region(memory: SystemSharedMemory) -> None:
    memory.register("r", "object", 0, 8)
    view = memory.view(RegionSlice("r", 0, 8))
    memory.unregister("r")
    assert view.read().tolist() == list(range(8))
    with pytest.raises(NotFound):
        memory.view(RegionSlice("r", 0, 8))


def test_rows_of_a_view_are_read_where_they_lie(memory: SystemSharedMemory) -> None:
    memory.register("r", "/object", 4, 64)
    rows = memory.view(RegionSlice("r", 4, 32)).viewed((4, 2, 2), np.dtype("<u2")).rows(1, 2)
    target = np.zeros((2, 2, 2), "<u2")
    rows.copy_into(target)
    assert rows.nbytes == 16
    assert target.tobytes() == bytes(range(16, 32))


def test_a_large_view_is_read_whole(memory: SystemSharedMemory, tmp_path: Path) -> None:
    contents = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(contents)
    memory.register("r", "/large", 0, len(contents))
    assert memory.view(RegionSlice("r", 1, len(contents) - 1)).read().tobytes() == contents[1:]


def test_status_names_key_offset_and_size(memory: SystemSharedMemory) -> None:
    memory.register("a", "/object", 16, 8)
    memory.register("b", "/object", 0, 4)
    assert memory.status() == {"a": ("/object", 16, 8), "b": ("/object", 0, 4)}
    assert memory.status("a") == {"a": ("/object", 16, 8)}
    with pytest.raises(NotFound):
        memory.status("c")


@pytest.mark.parametrize(
    ("name", "key", "offset", "byte_size", "error"),
    [
        ("", "/object", 0, 8, InvalidArgument),
        ("r", "/nothing", 0, 8, NotFound),
        ("r", "/object", 0, 0, InvalidArgument),
        ("r", "/object", 8190, 8, InvalidArgument),
        ("r", "/object", 2**64 - 4, 8, InvalidArgument),
        ("r", "/object", 0, 2**64 - 1, InvalidArgument),
        ("r", "/../object", 0, 8, InvalidArgument),
        ("r", "//object", 0, 8, InvalidArgument),
        ("r", "a/b", 0, 8, InvalidArgument),
        ("r", "..", 0, 8, InvalidArgument),
        ("r", "/", 0, 8, InvalidArgument),
        ("r", "obj\0ect", 0, 8, InvalidArgument),
        ("r", "x" * 300, 0, 8, InvalidArgument),
        ("r", "/link", 0, 8, InvalidArgument),
        ("r", "/folder", 0, 8, InvalidArgument),
        ("r", "/pipe", 0, 8, InvalidArgument),
        ("taken", "/object", 0, 8, AlreadyExists),
    ],
)
def test_refuses_to_register(
    memory: SystemSharedMemory, name: str, key: str, offset: int, byte_size: int, error: type[RequestError]
) -> None:
    memory.register("taken", "/object", 0, 8)
    before = open_descriptors()
    with pytest.raises(error):
        memory.register(name, key, offset, byte_size)
    assert memory.status() == {"taken": ("/object", 0, 8)}
    assert open_descriptors() == before


@pytest.mark.parametrize(("offset", "size"), [(0, 9), (8, 1), (2**63, 2**63), (1, 8)])
def test_refuses_slices_past_the_end(memory: SystemSharedMemory, offset: int, size: int) -> None:
    memory.register("r", "/object", 0, 8)
    with pytest.raises(InvalidArgument, match="past the end"):
        memory.view(RegionSlice("r", offset, size))


def test_notices_an_object_that_was_made_smaller(memory: SystemSharedMemory, tmp_path: Path) -> None:
    memory.register("r", "/object", 0, 8192)
    os.truncate(tmp_path / "object", 100)
    with pytest.raises(InvalidArgument, match="made smaller"):
        memory.view(RegionSlice("r", 0, 8192))


@pytest.mark.parametrize("use", ["read", "write"])
def test_an_object_made_smaller_after_it_was_looked_at_is_an_error(
    memory: SystemSharedMemory, tmp_path: Path, use: str
) -> None:
    memory.register("r", "/object", 0, 8192)
    view = memory.view(RegionSlice("r", 4096, 4096))
    os.truncate(tmp_path / "object", 5000)
    with pytest.raises(InvalidArgument, match="made smaller"):
        view.read() if use == "read" else view.memory.write(view.offset, bytes(4096))
    assert (tmp_path / "object").stat().st_size == 5000


class TrustingGuard(TruncationGuard):
    """One for files that nobody makes smaller during a copy; it remembers how copies from mappings went."""

    def __init__(self) -> None:
        super().__init__()
        self.went: list[bool] = []

    @property
    def protects(self) -> bool:
        return True

    def copy(self, mapping: Mapping, offset: int, target: Array) -> bool:
        self.went.append(super().copy(mapping, offset, target))
        return self.went[-1]


def test_an_object_that_was_mapped_while_it_was_smaller_is_mapped_again(tmp_path: Path) -> None:
    guard, path = TrustingGuard(), tmp_path / "object"
    target = np.empty(8192, np.uint8)
    path.write_bytes(bytes(4096))
    shared = SharedObject(os.open(path, os.O_RDWR), guard)
    with pytest.raises(InvalidArgument, match="smaller"):
        shared.read(0, target)
    path.write_bytes(b"x" * target.nbytes)
    shared.read(0, target)
    assert (target == ord("x")).all()
    assert guard.went == [False, True]


def test_what_is_mapped_and_cut_within_its_last_page_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(bytes(8192))
    shared = SharedObject(os.open(path, os.O_RDWR), TrustingGuard())
    shared.read(0, np.empty(8192, np.uint8))
    os.truncate(path, 5000)  # nobody is told: the page is still there, and holds zeros
    with pytest.raises(InvalidArgument, match="made smaller"):
        shared.read(4096, np.empty(4096, np.uint8))


def test_the_number_of_regions_is_bounded(memory: SystemSharedMemory) -> None:
    for index in range(MAX_REGIONS):
        memory.register(str(index), "/object", 0, 8)
    with pytest.raises(ResourceExhausted):
        memory.register("one more", "/object", 0, 8)


def test_running_out_of_descriptors_is_refused_and_passes(memory: SystemSharedMemory) -> None:
    with (
        limited(resource.RLIMIT_NOFILE, lowest_free_descriptor()),
        pytest.raises(ResourceExhausted, match="'r' cannot be opened"),
    ):
        memory.register("r", "/object", 0, 8)
    memory.register("r", "/object", 0, 8)


def test_a_region_costs_one_descriptor_until_its_last_view_is_gone(memory: SystemSharedMemory) -> None:
    before = open_descriptors()
    memory.register("r", "/object", 0, 8)
    view = memory.view(RegionSlice("r", 0, 8))
    memory.unregister("r")
    assert open_descriptors() == before + 1
    del view
    assert open_descriptors() == before


def test_errors_tell_no_path(memory: SystemSharedMemory, tmp_path: Path) -> None:
    for key in ("/nothing", "/link", "/folder", "/pipe", "/../object"):
        with pytest.raises(RequestError) as refused:
            memory.register("r", key, 0, 8)
        assert str(tmp_path) not in str(refused.value)


def test_descriptors_are_given_back(memory: SystemSharedMemory) -> None:
    before = open_descriptors()
    for _ in range(3):
        for index in range(10):
            memory.register(str(index), "/object", 0, 8)
        memory.unregister("3")
        memory.unregister("never there")
        memory.unregister_all()
    assert open_descriptors() == before


def test_shares_memory_with_tritonclient_in_another_process() -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", TRITON_CLIENT, KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        memory = SystemSharedMemory()
        memory.register("r", KEY, 0, 64)
        view = memory.view(RegionSlice("r", 0, 64))
        assert view.viewed((16,), np.dtype("<f4")).read().tolist() == list(range(16))
        view.memory.write(view.offset + 12, np.float32(42).tobytes())
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "42.0\n"
        memory.close()
