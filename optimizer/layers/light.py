"""Reading an ONNX file without the numbers of its weights, which are nearly all of it.

Of the protocol buffer only the frames are looked at: a field is a key (its number and its kind) and, where
the kind says so, a length and that many bytes. What is left out is never read from the disk. The numbers are
those of `onnx.proto`: a model's graph is field 7, a graph's stored tensors are field 5, and a tensor's bytes
are field 9.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto

_GRAPH, _STORED, _BYTES = 7, 5, 9
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_SHORT_BYTES = 512
"""Shapes, axes and the like are no longer and stay; shape inference reads them."""

_Field = tuple[int, int, int, int]


def read_light(path: Path) -> ModelProto:
    """Return the model with empty weights; their names, shapes and types stay.

    Raises:
        ValueError: the file is empty or is no protocol buffer.
        OSError: it cannot be read.
    """
    model = ModelProto()
    if not path.stat().st_size:
        raise ValueError("it is an empty file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            model.ParseFromString(_without(view, 0, len(view), (_GRAPH, _STORED, _BYTES)))
        except IndexError as error:
            raise ValueError("the file ends in the middle of a field") from error
    return model


def _without(view: mmap.mmap, begin: int, end: int, way: tuple[int, ...]) -> bytes:
    """Return a message without the long fields at the end of `way`, a path of field numbers."""
    kept = bytearray()
    for number, start, content, stop in _fields(view, begin, end):
        if number != way[0]:
            kept += view[start:stop]
        elif len(way) > 1:
            inner = _without(view, content, stop, way[1:])
            kept += _as_varint(number << 3 | _LENGTH) + _as_varint(len(inner)) + inner
        elif stop - content <= _SHORT_BYTES:
            kept += view[start:stop]
    return bytes(kept)


def _fields(view: mmap.mmap, begin: int, end: int) -> Iterator[_Field]:
    """Yield each field's number, and where it, its content and what follows it begin."""
    while begin < end:
        key, content = _varint(view, begin)
        kind = key & 7
        if kind == _LENGTH:
            length, content = _varint(view, content)
            stop = content + length
        elif kind == _VARINT:
            stop = _varint(view, content)[1]
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            stop = content + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"byte {begin} is not the beginning of a field")
        if stop > end:
            raise ValueError(f"the field at byte {begin} is longer than what it belongs to")
        yield key >> 3, begin, content, stop
        begin = stop


def _varint(view: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number, seven bits to a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _as_varint(value: int) -> bytes:
    answer = bytearray()
    while value >= 0x80:
        answer.append(value & 0x7F | 0x80)
        value >>= 7
    answer.append(value)
    return bytes(answer)
