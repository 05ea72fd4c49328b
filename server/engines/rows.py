"""Tensors that lie in memory of somebody else: where, and of what shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np

MemoryT_co = TypeVar("MemoryT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Rows(Generic[MemoryT_co]):
    """A tensor, or some rows of one; row-major without gaps.

    Args:
        memory: what it lies in.
        offset: bytes from the beginning of `memory`.
        shape: its shape.
        dtype: its type.
    """

    memory: MemoryT_co
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def viewed(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Self:
        """The same memory's first bytes as another tensor, which must not be larger."""
        return type(self)(self.memory, self.offset, shape, dtype)

    def rows(self, start: int, count: int) -> Self:
        """Some of the rows."""
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (count, *self.shape[1:])
        return type(self)(self.memory, self.offset + start * row_bytes, shape, self.dtype)
