"""Reading mapped files whose owners may make them smaller meanwhile.

A mapping is read several times as fast as the file itself: the kernel copies page by page, and waits for
memory at the beginning of each. But whoever reads a page that its file has lost is sent SIGBUS, which ends
the process. Here empty memory is laid over the mapping instead.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
from typing import Any

from server.engines.engine import Array
from server.wire.bus_errors import BusErrors
from server.wire.outside_memory import LARGE_COPY_BYTES, address_of, system_error

_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

logger = logging.getLogger("boulton.shared_memory")


def _library(kind: type[ctypes.CDLL]) -> Any:  # noqa: ANN401  # ctypes knows no signatures
    library = kind(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    library.mmap.restype = pointer
    library.munmap.argtypes = (pointer, size)
    library.memcpy.argtypes = (pointer, pointer, size)
    library.memcpy.restype = pointer
    return library


_LIBC = _library(ctypes.CDLL)
_COPY_KEEPING_LOCK, _COPY = _library(ctypes.PyDLL).memcpy, _LIBC.memcpy


class Mapping:
    """The first bytes of a file, mapped for reading; the mapping goes with the last use of it.

    Only a `TruncationGuard` reads it. `lost` turns true when the file had fewer bytes than were read.

    Args:
        descriptor: the file; not needed any more afterwards.
        nbytes: how many, at least 1.

    Raises:
        OSError: it cannot be mapped.
    """

    __slots__ = ("_nbytes", "address", "lost")

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self._nbytes = 0  # nothing to let go of yet
        self.lost = False
        self.address = _mapped(None, nbytes, mmap.MAP_SHARED, descriptor)
        self._nbytes = nbytes

    def __len__(self) -> int:
        return self._nbytes

    def holds(self, address: int) -> bool:
        """Whether a byte of this process's memory belongs to it."""
        return self.address <= address < self.address + self._nbytes

    def give_up(self) -> None:
        """Lay empty memory over it, for ever. Whoever reads it then goes on, and reads zeros."""
        self.lost = True
        _mapped(self.address, self._nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1)

    def __del__(self) -> None:
        if self._nbytes:
            _LIBC.munmap(self.address, self._nbytes)


def _mapped(address: int | None, nbytes: int, flags: int, descriptor: int) -> int:
    found: int | None = _LIBC.mmap(address, nbytes, mmap.PROT_READ, flags, descriptor, 0)
    if found is None or found == _FAILED:
        raise system_error()
    return found


class TruncationGuard:
    """Copies from mappings, in any thread, and survives when their files become smaller.

    A bus error anywhere else ends the process as ever.
    """

    def __init__(self) -> None:
        self._under_copy: dict[object, Mapping] = {}
        self._errors = BusErrors(self._mended)

    def start(self) -> bool:
        """Protect from now on; False, and said, where this system cannot."""
        started = self._errors.start()
        if not started:
            logger.info("shared memory is not mapped: this system's signals are not known")
        return started

    def stop(self) -> None:
        """Protect no more; what is copied from here on must not be mapped. Idempotent."""
        self._errors.stop()

    @property
    def protects(self) -> bool:
        """Whether it is safe to copy."""
        return self._errors.started

    def copy(self, mapping: Mapping, offset: int, target: Array) -> bool:
        """Fill a C-contiguous array from `offset` bytes on, while it `protects`.

        False: the mapping, or by now its file, holds less. What the array holds then means nothing.
        """
        nbytes = target.nbytes
        if offset + nbytes > len(mapping):
            return False
        copy = _COPY_KEEPING_LOCK if nbytes <= LARGE_COPY_BYTES else _COPY
        token = object()
        self._under_copy[token] = mapping
        try:
            copy(address_of(target), mapping.address + offset, nbytes)
        finally:
            del self._under_copy[token]
        if mapping.lost:
            logger.warning("shared memory was made smaller while it was read")
        return not mapping.lost

    def _mended(self, address: int) -> bool:
        """Give up the mapping that could not be read there. Its reader is in `copy`, which holds it."""
        for mapping in tuple(self._under_copy.values()):
            if mapping.holds(address):
                mapping.give_up()
                return True
        return False
