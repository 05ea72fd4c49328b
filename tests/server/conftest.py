"""The inference service over a real socket, for every test that wants one."""

from __future__ import annotations

import importlib.util
import mmap
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import daemon_process
import pytest

SERVICES = Path(__file__).parents[1] / "services"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/services/tiny_server.py: small real models and a server for them."""
    name = "tiny_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SERVICES / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def root(tiny: ModuleType, tmp_path: Path) -> Path:
    """A model repository with colour, pair, whole and gate."""
    return tiny.make_repository(tmp_path / "repository")


@pytest.fixture
def front_ends() -> int:
    """How many processes speak gRPC for the server; 0: it does. Modules may have it both ways."""
    return 0


@pytest.fixture
async def served(tiny: ModuleType, root: Path, front_ends: int) -> AsyncIterator[object]:
    """A server of that repository with everything loaded, and a client of it: `tiny_server.Served`."""
    async with tiny.start_server(root, front_ends=front_ends) as served:
        yield served


@pytest.fixture(params=[0, 2], ids=["own process", "front ends"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons of `daemon_process` speak gRPC for themselves, and through front ends."""
    flags = (*daemon_process.FREE_PORTS, "--front-ends", str(request.param))
    monkeypatch.setattr(daemon_process, "FREE_PORTS", flags)


@pytest.fixture
def region() -> Iterator[tuple[str, mmap.mmap]]:
    """A POSIX shared memory object of 4 KiB, as a client makes it."""
    key = f"/boulton-test-{os.getpid()}-{os.urandom(4).hex()}"
    path = Path("/dev/shm") / key[1:]  # noqa: S108  # where POSIX shared memory lives
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
        yield key, memory
    path.unlink()
