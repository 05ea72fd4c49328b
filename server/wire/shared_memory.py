"""System shared memory that clients share with the server: POSIX objects under names.

A client creates an object (`shm_open`), registers it here under a name, and from then on sends names and
offsets instead of pixels. Off by default: whoever may register may read and write any shared memory object
that the server's user may open.

An owner may make an object smaller at any moment, and whoever touches a mapping of what is gone is ended by
the kernel. So objects are written through their descriptors, where that is an error, and read under the eyes
of a `TruncationGuard`, or through their descriptors likewise where it cannot protect.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.engines.engine import Array
from server.errors import AlreadyExists, Internal, InvalidArgument, NotFound, ResourceExhausted
from server.wire.guarded_mapping import Mapping, TruncationGuard
from server.wire.outside_memory import OutsideRows, read_file
from server.wire.tensors import RegionSlice

SHARED_OBJECTS = Path("/dev/shm")  # noqa: S108  # where Linux keeps them
MAX_REGIONS = 512  # each costs a file descriptor, and 1024 is what a process usually may have
MAX_NAME_BYTES = 1024
_MAX_KEY_BYTES = 255
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_BYTE = np.dtype(np.uint8)
_SMALLER = "the shared memory object was made smaller after it was registered"
_OPEN_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class SharedObject:
    """An open shared memory object. Its descriptor goes with the last use of it."""

    __slots__ = ("_descriptor", "_guard", "_mapping")

    def __init__(self, descriptor: int, guard: TruncationGuard) -> None:
        self._descriptor = descriptor
        self._guard = guard
        self._mapping: Mapping | None = None

    def status(self) -> os.stat_result:
        """What it is, and how large now: its owner may change that."""
        return os.fstat(self._descriptor)

    def read(self, offset: int, target: Array) -> None:
        """Fill a C-contiguous array from `offset` on. Raises `InvalidArgument` where it was made smaller."""
        if self._guard.protects and self._copied(offset, target):
            return
        try:
            read_file(self._descriptor, offset, target)
        except EOFError as error:
            raise InvalidArgument(_SMALLER) from error
        except OSError as error:
            raise Internal(f"shared memory cannot be read: {error.strerror}") from error

    def _copied(self, offset: int, target: Array) -> bool:
        """Fill the array from a mapping; False where it has lost its end, or cannot be made.

        One that was made while the object was smaller is made again. Of an object that was cut within its
        last page a mapping reads zeros, and nobody is told; hence the look at its size afterwards.
        """
        mapping = self._mapping
        if mapping is None or mapping.lost or len(mapping) < offset + target.nbytes:
            try:
                mapping = self._mapping = Mapping(self._descriptor, self.status().st_size)
            except OSError:
                return False
        return self._guard.copy(mapping, offset, target) and offset + target.nbytes <= self.status().st_size

    def write(self, offset: int, raw: bytes | memoryview) -> None:
        """Put bytes there. Raises `InvalidArgument` where it was made smaller; it is never made larger."""
        if offset + len(raw) > self.status().st_size:
            raise InvalidArgument(_SMALLER)
        try:
            while raw:
                written = os.pwrite(self._descriptor, raw, offset)
                raw, offset = memoryview(raw)[written:], offset + written
        except OSError as error:
            raise Internal(f"shared memory cannot be written: {error.strerror}") from error

    def __del__(self) -> None:
        os.close(self._descriptor)


SharedBytes = OutsideRows[SharedObject]


@dataclass(frozen=True, slots=True)
class _Region:
    key: str
    offset: int
    byte_size: int
    object: SharedObject


class SystemSharedMemory:
    """The registered regions. Views stay valid while they are held, also after their region was unregistered.

    Args:
        root: where POSIX shared memory objects are files.
        guard: lets objects be mapped, once it is started.
    """

    def __init__(self, root: Path = SHARED_OBJECTS, guard: TruncationGuard | None = None) -> None:
        self._root = root
        self._guard = guard or TruncationGuard()
        self._regions: dict[str, _Region] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._regions

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open an object's bytes `offset` to `offset + byte_size` under a name.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: no such object.
            InvalidArgument: name, key or range is not allowed, or the object is smaller.
            ResourceExhausted: too many regions, or no memory or descriptors for one more.
        """
        check_region_name(name)
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' is registered already: unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise ResourceExhausted(f"{MAX_REGIONS} regions are registered, and no more may be")
        if byte_size < 1:
            raise InvalidArgument(
                f"shared memory region '{name}' needs a positive byte_size, got {byte_size}"
            )
        try:
            self._regions[name] = self._open(name, key, offset, byte_size)
        except FileNotFoundError as error:
            raise NotFound(
                f"shared memory region '{name}' cannot be opened: no object has that key"
            ) from error
        except OSError as error:
            refusal = ResourceExhausted if error.errno in _EXHAUSTED else InvalidArgument
            raise refusal(f"shared memory region '{name}' cannot be opened: {error.strerror}") from error

    def unregister(self, name: str) -> None:
        """Forget a region. It is no error when there is none, as in the protocol's other servers."""
        self._regions.pop(name, None)

    def unregister_all(self) -> None:
        """Forget every region."""
        self._regions.clear()

    def status(self, name: str = "") -> dict[str, tuple[str, int, int]]:
        """Return key, offset and byte size by name, of one region or of all. Raises `NotFound`."""
        if name and name not in self._regions:
            raise NotFound(f"shared memory region '{name}' is not registered")
        chosen = {name: self._regions[name]} if name else self._regions
        return {key: (region.key, region.offset, region.byte_size) for key, region in chosen.items()}

    def view(self, slice: RegionSlice) -> SharedBytes:  # noqa: A002  # the protocol's word
        """Return a slice's bytes, to be read and written. Raises `NotFound` or `InvalidArgument`."""
        region = self._regions.get(slice.region)
        if region is None:
            raise NotFound("the request names a shared memory region that is not registered")
        stop = slice.offset + slice.byte_size
        if stop > region.byte_size:
            raise InvalidArgument(
                f"offset {slice.offset} and byte size {slice.byte_size} reach past the end of the shared "
                f"memory region, which has {region.byte_size} bytes"
            )
        if region.object.status().st_size < region.offset + stop:
            raise InvalidArgument(_SMALLER)
        return OutsideRows(region.object, region.offset + slice.offset, (slice.byte_size,), _BYTE)

    def close(self) -> None:
        """Forget every region. Idempotent."""
        self.unregister_all()

    def _open(self, name: str, key: str, offset: int, byte_size: int) -> _Region:
        opened = SharedObject(os.open(self._root / _file_name(key), _OPEN_FLAGS), self._guard)
        _check_object(name, opened.status(), offset + byte_size)
        return _Region(key, offset, byte_size, opened)


def _check_object(name: str, status: os.stat_result, stop: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"shared memory region '{name}' is not a shared memory object")
    if stop > status.st_size:
        raise InvalidArgument(_too_small(name, stop, status.st_size))


def _too_small(name: str, stop: int, size: int) -> str:
    return f"shared memory region '{name}' ends at byte {stop}, but the object has {size} bytes"


def check_region_name(name: str) -> None:
    """Raise `InvalidArgument` unless a region may have that name."""
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
