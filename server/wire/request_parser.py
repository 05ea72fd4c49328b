"""From the bytes of a ModelInferRequest to its header, id and raw contents, without copying pixels.

In the generated class every access to `raw_input_contents` copies. All seven fields of the message are
length-delimited and have tags of one byte, so walking them takes a few lines; whatever looks different
(an unknown field, a group, an overlong length, a second id, a message cut short, very many fields) is left to
the generated class, which decides whether it is valid. The rest of the message, without id and raw contents,
is the same for every request of a client: it is parsed once and found again by its bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from server.errors import InvalidArgument
from server.wire.request_header import MAX_TENSORS, make_header
from server.wire.tensors import RequestHeader, RequestMessage

_ID_TAG = 3 << 3 | 2
_RAW_TAG = 7 << 3 | 2
_KNOWN_TAGS = frozenset(field << 3 | 2 for field in range(1, 8))

MAX_CACHED_HEADERS = 512
MAX_CACHED_HEADER_BYTES = 8192
# More than any request within the limits has. A field may be two bytes: 8 MiB of nothing else take the walk
# about two seconds, and the generated class a tenth of one.
MAX_WALKED_FIELDS = 1024


class SplitRequest(NamedTuple):
    """A request's top-level fields, sorted into header, id and raw contents."""

    header: bytes
    id: bytes
    raw: tuple[memoryview, ...]


class RequestParser:
    """Parses requests. Remembers the `MAX_CACHED_HEADERS` headers used last. Not thread-safe."""

    def __init__(self) -> None:
        self._headers: OrderedDict[bytes, RequestHeader] = OrderedDict()

    def parse(self, message: bytes) -> RequestMessage:
        """Take a request apart.

        Args:
            message: a serialized ModelInferRequest; the result refers to it.

        Raises:
            InvalidArgument: the message or its header is invalid; says what came and what is allowed.
        """
        split = split_request(message)
        if split is None:
            split = _split_by_generated_class(message)
        header = self._headers.get(split.header)
        if header is None:
            header = self._learn(split.header)
        else:
            self._headers.move_to_end(split.header)
        if len(split.raw) != header.raw_contents:
            raise _wrong_contents(header, len(split.raw))
        return RequestMessage(header, _text(split.id), split.raw)

    def _learn(self, encoded: bytes) -> RequestHeader:
        header = make_header(_generated(encoded))
        typed = any(tensor.typed is not None for tensor in header.inputs)
        if not typed and len(encoded) <= MAX_CACHED_HEADER_BYTES:
            if len(self._headers) >= MAX_CACHED_HEADERS:
                self._headers.popitem(last=False)
            self._headers[encoded] = header
        return header


def split_request(message: bytes) -> SplitRequest | None:
    """Walk the top-level fields; None when one of them is not plain, and the generated class must decide.

    Raises `InvalidArgument` for more raw contents than a request may have inputs.
    """
    view = memoryview(message)
    header: list[bytes] = []
    raw: list[memoryview] = []
    identifier: bytes | None = None
    position, end = 0, len(message)
    while position < end:
        start, tag = position, message[position]
        length, position = _length(message, position + 1)
        stop = position + length
        if tag not in _KNOWN_TAGS or length < 0 or stop > end:
            return None
        if tag == _RAW_TAG:
            raw.append(view[position:stop])
            _check_raw_count(len(raw))
        elif tag == _ID_TAG and identifier is None:
            identifier = message[position:stop]
        elif tag == _ID_TAG or len(header) == MAX_WALKED_FIELDS:
            return None  # of several ids the last one counts, but all must be valid
        else:
            header.append(message[start:stop])
        position = stop
    return SplitRequest(b"".join(header), identifier or b"", tuple(raw))


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


def _split_by_generated_class(message: bytes) -> SplitRequest:
    request = _generated(message)
    _check_raw_count(len(request.raw_input_contents))
    raw = tuple(memoryview(contents) for contents in request.raw_input_contents)
    identifier = request.id.encode()
    request.ClearField("raw_input_contents")
    request.ClearField("id")
    request.DiscardUnknownFields()
    return SplitRequest(request.SerializeToString(deterministic=True), identifier, raw)


def _generated(message: bytes) -> pb.ModelInferRequest:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidArgument(
            f"the {len(message)} bytes received are not a valid inference.ModelInferRequest"
        ) from error


def _text(identifier: bytes) -> str:
    try:
        return identifier.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument("the request's id is not valid UTF-8") from error


def _check_raw_count(count: int) -> None:
    if count > MAX_TENSORS:
        raise InvalidArgument(f"a request may have {MAX_TENSORS} raw_input_contents, got {count} or more")


def _wrong_contents(header: RequestHeader, raw: int) -> InvalidArgument:
    typed = sum(tensor.typed is not None for tensor in header.inputs)
    if typed and raw:
        return InvalidArgument(
            f"send raw_input_contents or typed contents, never both: got {raw} raw and {typed} typed"
        )
    expected = sum(tensor.region is None for tensor in header.inputs)
    return InvalidArgument(
        f"expected contents for {expected} inputs (those outside shared memory) of model "
        f"'{header.model_name}', got {raw} raw and {typed} typed"
    )
