"""Memory that a front end and the core share: pixels are put there by the one and read there by the other."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import defaultdict

ARENA_BYTES = 256 << 20
SMALLEST_BLOCK_BYTES = 1 << 14
ALIGNMENT = 64


def make_arena() -> int:
    """Return the descriptor of a new arena. Its size is sealed: nobody who has it can make it smaller."""
    descriptor = os.memfd_create("boulton-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, ARENA_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def open_arena(descriptor: int) -> memoryview:
    """Map an arena and close its descriptor; the mapping goes with the last view of it.

    Pages take memory once they are written.
    """
    try:
        return memoryview(mmap.mmap(descriptor, ARENA_BYTES))
    finally:
        os.close(descriptor)


class Blocks:
    """Which bytes of an arena are taken. Pure.

    Blocks have sizes of powers of two and keep them; of each size the one given back last is taken first,
    because it is likeliest to be in a cache. Once nothing is taken, all is one again.
    """

    def __init__(self, nbytes: int = ARENA_BYTES) -> None:
        self._nbytes = nbytes
        self._never_taken = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._taken: dict[int, int] = {}

    def take(self, nbytes: int) -> int | None:
        """Return where so many bytes may be put; None where no block is large enough."""
        size = max(SMALLEST_BLOCK_BYTES, 1 << (nbytes - 1).bit_length())
        if self._free[size]:
            offset = self._free[size].pop()
        elif self._never_taken + size <= self._nbytes:
            offset = self._never_taken
            self._never_taken += size
        else:
            return None
        self._taken[offset] = size
        return offset

    def give_back(self, offset: int) -> None:
        """Let others have a block."""
        self._free[self._taken.pop(offset)].append(offset)
        if not self._taken:
            self._free.clear()
            self._never_taken = 0


def aligned(nbytes: int) -> int:
    """Round up, so that what follows lies well for any processor."""
    return -nbytes % ALIGNMENT + nbytes
