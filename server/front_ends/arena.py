"""Memory that a front end and the core share: pixels are put there by the one and read there by the other."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import defaultdict
from heapq import heappop, heappush

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


def give_pages_back(arena: memoryview, start: int, stop: int) -> None:
    """Let the kernel have the whole pages in between, for both ends: nothing is kept there."""
    mapped = arena.obj
    first, last = -(-start // mmap.PAGESIZE), stop // mmap.PAGESIZE
    if isinstance(mapped, mmap.mmap) and first < last:
        mapped.madvise(mmap.MADV_REMOVE, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


class Blocks:
    """Which bytes of an arena are taken. Pure.

    Blocks have sizes of powers of two and keep them; of each size the one that lies lowest is taken first, so
    that no more pages are written than the most requests at once needed since `trim`. Otherwise blocks are
    given up only where there is no room for a size: those above everything that is taken.
    """

    def __init__(self, nbytes: int = ARENA_BYTES) -> None:
        self._nbytes = nbytes
        self._never_taken = 0
        self._highest = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._taken: dict[int, int] = {}

    def take(self, nbytes: int) -> int | None:
        """Return where so many bytes may be put; None where no block is large enough."""
        size = max(SMALLEST_BLOCK_BYTES, 1 << (nbytes - 1).bit_length())
        if self._free[size]:
            offset = heappop(self._free[size])
        elif self._has_room(size):
            offset = self._never_taken
            self._never_taken += size
        else:
            return None
        self._taken[offset] = size
        self._highest = max(self._highest, offset + size)
        return offset

    def give_back(self, offset: int) -> None:
        """Let others have a block."""
        heappush(self._free[self._taken.pop(offset)], offset)

    def trim(self) -> tuple[int, int]:
        """Give up what lies above all that was taken since the last time; return its beginning and end."""
        start, stop = min(self._highest, self._never_taken), self._never_taken
        self._cut(start)
        self._highest = self._end_of_taken()
        return start, stop

    def _has_room(self, size: int) -> bool:
        if self._never_taken + size > self._nbytes:
            self._give_up()
        return self._never_taken + size <= self._nbytes

    def _give_up(self) -> None:
        """Make the blocks above everything that is taken one again."""
        self._cut(self._end_of_taken())

    def _cut(self, end: int) -> None:
        self._never_taken = end
        for offsets in self._free.values():
            offsets[:] = sorted(offset for offset in offsets if offset < end)

    def _end_of_taken(self) -> int:
        return max((offset + size for offset, size in self._taken.items()), default=0)


def aligned(nbytes: int) -> int:
    """Round up, so that what follows lies well for any processor."""
    return -nbytes % ALIGNMENT + nbytes
