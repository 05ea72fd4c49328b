"""Tensors as requests describe them, and their contents: raw, typed, strings, classes.

Knows the wire, but neither models nor engines.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from server.engines.engine import Array
from server.errors import InvalidArgument
from server.wire.outside_memory import RawContents

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class RegionSlice:
    """Bytes in a registered region of shared memory."""

    region: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True, eq=False)
class InputHeader:
    """An input tensor without its raw contents.

    Args:
        name: the tensor's name.
        datatype: one of the protocol's names.
        shape: all positive; the product is below 2^63.
        region: where in shared memory its contents lie; None when they came along.
        typed: typed contents as a flat array, or as the elements of BYTES; None when there are none.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    region: RegionSlice | None = None
    typed: Array | tuple[bytes, ...] | None = None


@dataclass(frozen=True, slots=True)
class OutputHeader:
    """A requested output: the tensor itself, or with `classification` above 0 its best classes."""

    name: str
    classification: int
    region: RegionSlice | None


@dataclass(frozen=True, slots=True, eq=False)
class RequestHeader:
    """Everything about a request but its id and raw contents.

    Compared by identity: one object is kept for each distinct header, so that what follows from a header can
    be found by it. `timeout_us` 0 means none; `outputs` empty means all. `raw_contents` is how many raw
    contents the request must bring; -1 when no number is right: some inputs have typed contents, others none.
    """

    model_name: str
    model_version: str
    inputs: tuple[InputHeader, ...]
    outputs: tuple[OutputHeader, ...]
    priority: int
    timeout_us: int
    empty_final_response: bool
    raw_contents: int = field(init=False)

    def __post_init__(self) -> None:
        missing = sum(tensor.region is None and tensor.typed is None for tensor in self.inputs)
        mixed = missing and any(tensor.typed is not None for tensor in self.inputs)
        object.__setattr__(self, "raw_contents", -1 if mixed else missing)


class RequestMessage(NamedTuple):
    """A parsed request. `raw` are its contents, one for each input outside shared memory, not copied.

    `id` is what the client sent, to be echoed. It may hold line breaks and other control characters, as may
    every name in the header: whoever logs them must log their `repr()`, or a client could forge log lines.
    """

    header: RequestHeader
    id: str
    raw: tuple[RawContents, ...]


def unpack_bytes(raw: memoryview, count: int) -> tuple[memoryview, ...]:
    """Split raw BYTES (each a little-endian uint32 length and that many bytes) into exactly `count` elements.

    Raises:
        InvalidArgument: an element runs past the end, or there are more or fewer elements.
    """
    elements: list[memoryview] = []
    position = 0
    while position < len(raw) and len(elements) < count:
        start = position + _LENGTH.size
        length = _LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else 0
        if start > len(raw) or start + length > len(raw):
            raise InvalidArgument(
                f"element {len(elements)} of the BYTES tensor runs past the end of its {len(raw)} bytes"
            )
        elements.append(raw[start : start + length])
        position = start + length
    if len(elements) != count or position != len(raw):
        excess = f" and {len(raw) - position} bytes more" if position != len(raw) else ""
        raise InvalidArgument(f"the BYTES tensor must hold {count} elements, got {len(elements)}{excess}")
    return tuple(elements)


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """Join elements to raw BYTES: each is preceded by its length as a little-endian uint32."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def classify(scores: Array, k: int, labels: tuple[str, ...]) -> list[bytes]:
    """Name the best classes of every row.

    Args:
        scores: `[n, classes]`, any numeric type; a NaN ranks last.
        k: classes wanted for each row; more than there are means all.
        labels: one per class, or fewer.

    Returns:
        n * min(k, classes) strings `value:index` or `value:index:label`, row-major, best first; of equal
        values the lower index comes first.
    """
    ranked = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
    return [
        _class_text(row[index], int(index), labels)
        for row, best in zip(scores, ranked, strict=True)
        for index in best
    ]


def _class_text(value: np.generic, index: int, labels: tuple[str, ...]) -> bytes:
    number = f"{value:f}" if isinstance(value, np.floating) else str(value)
    label = f":{labels[index]}" if index < len(labels) and labels[index] else ""
    return f"{number}:{index}{label}".encode()


def typed_array(
    name: str, datatype: str, dtype: np.dtype[np.generic], values: Sequence[float | int | bool]
) -> Array:
    """Make a flat array of typed contents, refusing integers that do not fit into the datatype."""
    array = np.array(values, dtype=_carrier(dtype))
    if dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype.type)  # type: ignore[type-var]  # kind says that it is an integer
        low, high = int(array.min()), int(array.max())
        if low < bounds.min or high > bounds.max:
            raise InvalidArgument(
                f"input '{name}' of datatype {datatype} takes {bounds.min} to {bounds.max}, "
                f"got values from {low} to {high}"
            )
    return array.astype(dtype, copy=False)


def _carrier(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The type in which the wire carries a datatype: small integers travel as 32 bits."""
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.dtype(np.int64)
    return dtype


def check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape, or raise `InvalidArgument`: a dimension below 1, or a product of 2^63 or more."""
    if any(dimension < 1 for dimension in shape):
        raise InvalidArgument(f"input '{name}' needs dimensions of at least 1, got {_text(shape)}")
    if math.prod(shape) >= 1 << 63:
        raise InvalidArgument(f"input '{name}' must have fewer than 2^63 elements, got {_text(shape)}")
    return tuple(shape)


def _text(shape: Sequence[int]) -> str:
    shown = ",".join(str(dimension) for dimension in shape[:16])
    return f"[{shown},...]" if len(shape) > 16 else f"[{shown}]"
