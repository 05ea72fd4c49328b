"""System shared memory that clients share with the server: POSIX objects under names.

A client creates an object (`shm_open`), registers it here under a name, and from then on sends names and
offsets instead of pixels. Off by default: whoever may register may read and write any shared memory object
that the server's user may open.

An object that its owner makes smaller is noticed before every use. In the instant between that look and the
use itself the kernel would end the process: let in only clients that are trusted not to do so.
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from server.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from server.tensors import RegionSlice

MAX_REGIONS = 1024
MAX_NAME_BYTES = 1024
_MAX_KEY_BYTES = 255
_OPEN_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class _Region:
    key: str
    offset: int
    memory: memoryview
    descriptor: int


class SystemSharedMemory:
    """The registered regions. Views stay valid while they are held, also after their region was unregistered.

    Args:
        root: where POSIX shared memory objects are files.
    """

    def __init__(self, root: Path = Path("/dev/shm")) -> None:  # noqa: S108  # where Linux keeps these objects
        self._root = root
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open an object's bytes `offset` to `offset + byte_size` under a name.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: no such object.
            InvalidArgument: name, key or range is not allowed, or the object is smaller.
            ResourceExhausted: too many regions.
        """
        _check_name(name)
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' is registered already: unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise ResourceExhausted(f"{MAX_REGIONS} regions are registered, and no more may be")
        if byte_size < 1:
            raise InvalidArgument(
                f"shared memory region '{name}' needs a positive byte_size, got {byte_size}"
            )
        descriptor = self._open(name, _file_name(key))
        try:
            self._regions[name] = _Region(key, offset, _map(name, descriptor, offset, byte_size), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def unregister(self, name: str) -> None:
        """Forget a region. It is no error when there is none, as in the protocol's other servers."""
        region = self._regions.pop(name, None)
        if region is not None:
            os.close(region.descriptor)

    def unregister_all(self) -> None:
        """Forget every region."""
        for name in tuple(self._regions):
            self.unregister(name)

    def status(self, name: str = "") -> dict[str, tuple[str, int, int]]:
        """Return key, offset and byte size by name, of one region or of all. Raises `NotFound`."""
        if name and name not in self._regions:
            raise NotFound(f"shared memory region '{name}' is not registered")
        chosen = {name: self._regions[name]} if name else self._regions
        return {key: (region.key, region.offset, len(region.memory)) for key, region in chosen.items()}

    def view(self, slice: RegionSlice) -> memoryview:  # noqa: A002  # the protocol's word
        """Return a slice's bytes, writable. Raises `NotFound` or `InvalidArgument`."""
        region = self._regions.get(slice.region)
        if region is None:
            raise NotFound("the request names a shared memory region that is not registered")
        stop = slice.offset + slice.byte_size
        if stop > len(region.memory):
            raise InvalidArgument(
                f"offset {slice.offset} and byte size {slice.byte_size} reach past the end of the shared "
                f"memory region, which has {len(region.memory)} bytes"
            )
        if os.fstat(region.descriptor).st_size < region.offset + stop:
            raise InvalidArgument("the shared memory object was made smaller after it was registered")
        return region.memory[slice.offset : stop]

    def close(self) -> None:
        """Forget every region. Idempotent."""
        self.unregister_all()

    def _open(self, name: str, file_name: str) -> int:
        refused = f"shared memory region '{name}' cannot be opened"
        try:
            return os.open(self._root / file_name, _OPEN_FLAGS)
        except FileNotFoundError as error:
            raise NotFound(f"{refused}: no object has that key") from error
        except OSError as error:
            raise InvalidArgument(f"{refused}: {error.strerror}") from error


def _map(name: str, descriptor: int, offset: int, byte_size: int) -> memoryview:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"shared memory region '{name}' is not a shared memory object")
    if offset + byte_size > status.st_size:
        raise InvalidArgument(
            f"shared memory region '{name}' ends at byte {offset + byte_size}, "
            f"but the object has {status.st_size} bytes"
        )
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapping = mmap.mmap(descriptor, offset - start + byte_size, offset=start)
    return memoryview(mapping)[offset - start :]


def _check_name(name: str) -> None:
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"a shared memory region needs a name of 1 to {MAX_NAME_BYTES} bytes")


def _file_name(key: str) -> str:
    """The object's file name: POSIX keys begin with one slash and hold no other."""
    file_name = key.removeprefix("/")
    bad = "/" in file_name or "\0" in file_name or file_name in ("", ".", "..")
    if bad or len(file_name.encode()) > _MAX_KEY_BYTES:
        raise InvalidArgument(
            f"a shared memory key is 1 to {_MAX_KEY_BYTES} bytes without slashes but for a leading one"
        )
    return file_name
