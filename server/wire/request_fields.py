"""Where the top-level fields of a ModelInferRequest lie: the walk that saves copying pixels. Pure.

In the generated class every access to `raw_input_contents` copies. All seven fields of the message are
length-delimited and have tags of one byte, so walking them takes a few lines; whatever looks different
(an unknown field, a group, an overlong length, a second id, a message cut short, very many fields) is left to
the generated class, which decides whether it is valid.
"""

from __future__ import annotations

from typing import NamedTuple

from server.errors import InvalidArgument

MAX_TENSORS = 64
"""Inputs, or outputs, that one request may have."""

# More than any request within the limits has. A field may be two bytes: 8 MiB of nothing else take the walk
# about two seconds, and the generated class a tenth of one.
MAX_WALKED_FIELDS = 1024

_ID_TAG = 3 << 3 | 2
_RAW_TAG = 7 << 3 | 2
_KNOWN_TAGS = frozenset(field << 3 | 2 for field in range(1, 8))


class RequestFields(NamedTuple):
    """A request's fields, sorted: the header's joined, the id, and where each raw content starts and ends."""

    header: bytes
    id: bytes
    raw: list[tuple[int, int]]


def find_fields(message: bytes) -> RequestFields | None:
    """Walk the top-level fields; None when one of them is not plain, and the generated class must decide.

    Raises `InvalidArgument` for more raw contents than a request may have inputs.
    """
    header: list[bytes] = []
    raw: list[tuple[int, int]] = []
    identifier: bytes | None = None
    position, end = 0, len(message)
    while position < end:
        start, tag = position, message[position]
        length, position = _length(message, position + 1)
        stop = position + length
        if tag not in _KNOWN_TAGS or length < 0 or stop > end:
            return None
        if tag == _RAW_TAG:
            raw.append((position, stop))
            check_raw_count(len(raw))
        elif tag == _ID_TAG and identifier is None:
            identifier = message[position:stop]
        elif tag == _ID_TAG or len(header) == MAX_WALKED_FIELDS:
            return None  # of several ids the last one counts, but all must be valid
        else:
            header.append(message[start:stop])
        position = stop
    return RequestFields(b"".join(header), identifier or b"", raw)


def check_raw_count(count: int) -> None:
    """Raise `InvalidArgument` for more raw contents than a request may have inputs."""
    if count > MAX_TENSORS:
        raise InvalidArgument(f"a request may have {MAX_TENSORS} raw_input_contents, got {count} or more")


def _length(message: bytes, position: int) -> tuple[int, int]:
    """Read a varint of up to five bytes: its value and where it ends; -1 when it is longer or cut short."""
    value = shift = 0
    for byte in message[position : position + 5]:
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    return -1, position
