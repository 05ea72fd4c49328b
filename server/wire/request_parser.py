"""From the bytes of a ModelInferRequest to its header, id and raw contents, without copying pixels.

What is not id and not raw contents is the same for every request of a client: it is parsed once and found
again by its bytes. See `request_fields` for how the parts are found.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from server.errors import InvalidArgument
from server.wire.outside_memory import RawContents
from server.wire.request_fields import check_raw_count, find_fields
from server.wire.request_header import make_header
from server.wire.tensors import RequestHeader, RequestMessage

MAX_CACHED_HEADERS = 512
MAX_CACHED_HEADER_BYTES = 8192


class SplitRequest(NamedTuple):
    """A request's top-level fields, sorted into header, id and raw contents, wherever these lie."""

    header: bytes
    id: bytes
    raw: tuple[RawContents, ...]


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
        if len(message) <= MAX_CACHED_HEADER_BYTES and message in self._headers:
            return self.resolve(SplitRequest(message, b"", ()))  # it has neither id nor raw contents
        return self.resolve(split_request(message) or _split_by_generated_class(message))

    def resolve(self, split: SplitRequest) -> RequestMessage:
        """Understand a request whose parts were found elsewhere. Raises `InvalidArgument`."""
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
    """Find the parts, as views; None when the generated class must decide. Raises `InvalidArgument`."""
    fields = find_fields(message)
    if fields is None:
        return None
    view = memoryview(message)
    return SplitRequest(fields.header, fields.id, tuple([view[start:stop] for start, stop in fields.raw]))


def _split_by_generated_class(message: bytes) -> SplitRequest:
    request = _generated(message)
    check_raw_count(len(request.raw_input_contents))
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
