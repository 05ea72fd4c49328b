"""Tensors that lie in memory which this process does not own: a client's.

Such memory may shrink or vanish between two looks at it, and touching a mapping of what is gone ends the
process. So the kernel copies from it, once, and says when it cannot; or a `guarded_mapping` is read.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np

from server.engines.device_rows import DeviceRows
from server.engines.engine import Array
from server.engines.rows import Rows

LARGE_COPY_BYTES = 1 << 20
"""Up to here a copy keeps the interpreter lock (a memoryview does, numpy does not): it is over in less time
than the engine's thread would wait to get the lock back from a busy event loop."""


class OutsideMemory(Protocol):
    """Memory of somebody else."""

    def read(self, offset: int, target: Array) -> None:
        """Fill a C-contiguous array from `offset` bytes on. Raises `RequestError` where there is less."""


MemoryT_co = TypeVar("MemoryT_co", bound=OutsideMemory, covariant=True)


@dataclass(frozen=True, slots=True)
class OutsideRows(Rows[MemoryT_co]):
    """Rows in outside memory."""

    def copy_into(self, target: Array) -> None:
        """Fill a C-contiguous array of the same size. Raises `RequestError` when the memory is gone."""
        self.memory.read(self.offset, target)

    def read(self) -> Array:
        """Return a copy. Raises `RequestError` when the memory is gone."""
        copied = np.empty(self.shape, self.dtype)
        self.copy_into(copied)
        return copied


RawContents: TypeAlias = memoryview | OutsideRows[OutsideMemory]
"""One tensor's bytes."""

Tensor: TypeAlias = Array | DeviceRows | OutsideRows[OutsideMemory]
"""In this process's memory, on the GPU, or elsewhere on the host."""


def in_own_memory(tensors: tuple[Tensor, ...]) -> TypeGuard[tuple[Array, ...]]:
    """Whether all of them are in this process's memory."""
    return not any(isinstance(tensor, Rows) for tensor in tensors)


def _pread(library: type[ctypes.CDLL]) -> Callable[..., int]:
    pread: Callable[..., int] = library(None, use_errno=True).pread
    pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)  # type: ignore[attr-defined]
    pread.restype = ctypes.c_ssize_t  # type: ignore[attr-defined]
    return pread


_SMALL, _LARGE = _pread(ctypes.PyDLL), _pread(ctypes.CDLL)


def read_file(descriptor: int, offset: int, target: Array) -> None:
    """Fill a C-contiguous array with a file's bytes. Raises `EOFError` where it ends, `OSError`."""
    pread = _SMALL if target.nbytes <= LARGE_COPY_BYTES else _LARGE
    address, missing = address_of(target), target.nbytes
    while missing:
        got = pread(descriptor, address, missing, offset)
        if got < 0:
            raise system_error()
        if got == 0:
            raise EOFError(f"{missing} bytes are missing")
        address, offset, missing = address + got, offset + got, missing - got


def address_of(array: Array) -> int:
    """Return where an array's first byte lies."""
    address: Any = array.__array_interface__["data"][0]
    return int(address)


def system_error() -> OSError:
    """Return what the C library's last call here, of a library that keeps `errno`, failed for."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
