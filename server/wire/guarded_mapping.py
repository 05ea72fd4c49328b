"""Reading mapped files whose owners may make them smaller meanwhile.

A mapping is read three times as fast as the file itself: the kernel copies page by page, and waits for memory
at the beginning of each. But whoever reads a page that its file has lost is sent SIGBUS, which ends the
process. Here it is mended instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import mmap
import os
import signal
import threading
import time
from typing import Any

from server.engines.engine import Array
from server.wire.outside_memory import address_of

PATIENCE_S = 1.0
"""A signal that no copy explains may be one that was mended already, told late; after this long it is not."""

_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

logger = logging.getLogger("boulton.shared_memory")


def _library() -> Any:  # noqa: ANN401  # ctypes knows no signatures
    """Functions that let go of the interpreter lock: who mends needs it."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    library.mmap.restype = pointer
    library.munmap.argtypes = (pointer, size)
    library.memcpy.argtypes = (pointer, pointer, size)
    library.memcpy.restype = pointer
    return library


_LIBC = _library()


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
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


class TruncationGuard:
    """Copies from mappings, and survives when their files become smaller.

    SIGBUS comes to the thread that copies. Python's handler notes it, wakes the event loop and returns to the
    same instruction, which fails again, and again, until the event loop has given the mapping up. So the
    event loop itself cannot be protected, nor anybody who holds the interpreter lock. A SIGBUS that comes
    from elsewhere (a file on a disk that fails) ends the process as ever, a second later; but not where it
    hits the lock's holder, which then fails for ever: start this only where shared memory is wanted.
    """

    def __init__(self) -> None:
        self._under_copy: dict[object, Mapping] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._unexplained_since_s: float | None = None

    def start(self) -> bool:
        """Protect from now on, by the running event loop; False where it is not the main thread's."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGBUS, self._on_signal)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            logger.info("shared memory is not mapped: %s", error)
            return False
        self._loop, self._loop_thread = loop, threading.get_ident()
        return True

    def stop(self) -> None:
        """Protect no more; what is copied from here on is not mapped. Idempotent."""
        if self._loop is not None:
            self._loop.remove_signal_handler(signal.SIGBUS)
            self._loop = None

    @property
    def protects(self) -> bool:
        """Whether the calling thread may copy."""
        return self._loop is not None and threading.get_ident() != self._loop_thread

    def copy(self, mapping: Mapping, offset: int, target: Array) -> bool:
        """Fill a C-contiguous array from `offset` bytes on, in a thread that it `protects`.

        False: the mapping, or by now its file, holds less. What the array holds then means nothing.
        """
        if offset + target.nbytes > len(mapping):
            return False
        token = object()
        self._under_copy[token] = mapping
        try:
            _LIBC.memcpy(address_of(target), mapping.address + offset, target.nbytes)
        finally:
            del self._under_copy[token]
        return not mapping.lost

    def _on_signal(self) -> None:
        """Give up whatever is under copy: the signal does not say who it was for."""
        suspects = [mapping for mapping in tuple(self._under_copy.values()) if not mapping.lost]
        for mapping in suspects:
            mapping.give_up()
        if suspects:
            logger.warning("shared memory was made smaller while it was read")
            self._unexplained_since_s = None
        else:
            self._doubt(time.monotonic())

    def _doubt(self, now_s: float) -> None:
        if self._unexplained_since_s is None:
            self._unexplained_since_s = now_s
        elif now_s - self._unexplained_since_s > PATIENCE_S:
            logger.critical("a bus error outside shared memory ends the process")
            self.stop()
