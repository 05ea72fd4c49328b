from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protos import grpc_service_pb2 as pb
from server.errors import InvalidArgument
from server.wire.request_fields import MAX_TENSORS, MAX_WALKED_FIELDS
from server.wire.request_header import make_header
from server.wire.request_parser import (
    MAX_CACHED_HEADER_BYTES,
    MAX_CACHED_HEADERS,
    RequestParser,
    split_request,
)
from server.wire.tensors import RequestHeader, RequestMessage

Result = TypeVar("Result")
TEXT = st.text(max_size=12)
RAW = st.lists(st.binary(max_size=300), max_size=4)


def request(**fields: object) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="cnn", **fields)  # type: ignore[arg-type]
    message.inputs.add(name="image", datatype="UINT8", shape=[1, 2, 2, 3])
    return message


def parameter() -> st.SearchStrategy[pb.InferParameter]:
    return st.one_of(
        st.booleans().map(lambda value: pb.InferParameter(bool_param=value)),
        st.integers(-(2**63), 2**63 - 1).map(lambda value: pb.InferParameter(int64_param=value)),
        st.integers(0, 2**64 - 1).map(lambda value: pb.InferParameter(uint64_param=value)),
        st.floats(allow_nan=False).map(lambda value: pb.InferParameter(double_param=value)),
        TEXT.map(lambda value: pb.InferParameter(string_param=value)),
    )


EXTRAS = [
    pb.ModelInferRequest(model_name="other").SerializeToString(),
    pb.ModelInferRequest(id="other").SerializeToString(),
    pb.ModelInferRequest(raw_input_contents=[b"x"]).SerializeToString(),
    b"\x0a\x81\x80\x00a",  # a length of three bytes where one would do
    b"\x9a\x00\x01z",  # a tag of two bytes where one would do
    b"\x1a\x01\xff",  # an id that is not UTF-8
    b"\x78\x01",  # unknown fields: varint, bytes, 64 bits, 32 bits, group
    b"\x7a\x02ab",
    b"\x79" + b"\0" * 8,
    b"\x7d" + b"\0" * 4,
    b"\x7b\x08\x01\x7c",
    b"\x08\x05",  # known fields of another wire type
    b"\x18\x05",
    b"\x3d" + b"\0" * 4,
]

PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["priority", "timeout", "shared_memory_region", "shared_memory_byte_size", "own", "triton_x"]
    ),
    parameter(),
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for name, value in draw(PARAMETERS).items():
        message.parameters[name].CopyFrom(value)
    for _ in range(draw(st.integers(0, 3))):
        tensor = message.inputs.add(
            name=draw(TEXT), datatype=draw(st.sampled_from(["UINT8", "FP32", "BYTES", "FP16", "NOPE"]))
        )
        tensor.shape.extend(draw(st.lists(st.integers(-1, 5), max_size=4)))
        if draw(st.booleans()):
            tensor.contents.uint_contents.extend(draw(st.lists(st.integers(0, 300), max_size=3)))
        for name, value in draw(PARAMETERS).items():
            tensor.parameters[name].CopyFrom(value)
    for name in draw(st.lists(TEXT, max_size=2)):
        message.outputs.add(name=name)
    message.raw_input_contents.extend(draw(RAW))
    return message


@st.composite
def good_requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Requests that are accepted, so that damage decides and not what was wrong from the start."""
    message = pb.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    message.parameters["own"].CopyFrom(draw(parameter()))
    for name in draw(st.lists(TEXT, max_size=3, unique=True)):
        message.inputs.add(name=name, datatype="UINT8", shape=draw(st.lists(st.integers(1, 300), max_size=3)))
        message.raw_input_contents.append(draw(st.binary(max_size=200)))
    for name in draw(st.lists(TEXT, max_size=2, unique=True)):
        message.outputs.add(name=name)
    return message


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """A good request in pieces of the wire, shuffled: order, repetition, unknown fields, overlong varints."""
    message = draw(good_requests()).SerializeToString()
    extras = draw(st.lists(st.sampled_from(EXTRAS), max_size=3))
    return b"".join(draw(st.permutations([message, *extras])))


def flip(data: st.DataObject, message: bytes) -> bytes:
    """Damage a message: overwrite, insert, cut or repeat a few bytes."""
    mutated = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(mutated)))
        kind = data.draw(st.sampled_from(["write", "insert", "cut", "repeat"]))
        if kind == "write" and position < len(mutated):
            mutated[position] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            mutated[position:position] = data.draw(st.binary(max_size=8))
        elif kind == "cut":
            del mutated[position : position + data.draw(st.integers(1, 8))]
        else:
            mutated[position:position] = mutated[: data.draw(st.integers(0, 24))]
    return bytes(mutated)


def outcome(parse: Callable[[bytes], Result], message: bytes) -> Result | Exception:
    """What parsing gives, or the error it raises."""
    try:
        return parse(message)
    except (DecodeError, InvalidArgument) as error:
        return error


def by_generated_class(message: bytes) -> tuple[pb.ModelInferRequest, RequestHeader]:
    expected = pb.ModelInferRequest.FromString(message)
    return expected, make_header(expected)


def assert_agrees_with_generated_class(message: bytes) -> None:
    """What one accepts, the other accepts with the same fields; what one refuses, so does the other.

    Also when the parser knows the header already.
    """
    expected, parser = outcome(by_generated_class, message), RequestParser()
    for _ in ("new", "known"):
        assert_agrees(outcome(parser.parse, message), expected)


def assert_agrees(
    ours: RequestMessage | Exception, expected: tuple[pb.ModelInferRequest, RequestHeader] | Exception
) -> None:
    if isinstance(expected, DecodeError):
        assert isinstance(ours, InvalidArgument)
    elif isinstance(expected, InvalidArgument):
        assert str(ours) == str(expected)
    elif isinstance(ours, InvalidArgument):  # only the parser compares contents with inputs
        assert "expected contents for" in str(ours) or "never both" in str(ours)
    else:
        assert isinstance(ours, RequestMessage)
        assert isinstance(expected, tuple)
        assert_same_request(ours, *expected)


def assert_walk_agrees_with_generated_class(message: bytes) -> None:
    """Where the walk decides: what it took apart is valid exactly when the whole is, and means the same."""
    split = split_request(message)
    if split is None:
        return
    whole, header = (outcome(pb.ModelInferRequest.FromString, part) for part in (message, split.header))
    valid_id = split.id.decode(errors="ignore").encode() == split.id
    assert isinstance(whole, DecodeError) == (isinstance(header, DecodeError) or not valid_id)
    if isinstance(whole, pb.ModelInferRequest) and isinstance(header, pb.ModelInferRequest):
        header.id = split.id.decode()
        header.raw_input_contents.extend(bytes(view) for view in split.raw)
        assert header.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def assert_same_request(ours: RequestMessage, message: pb.ModelInferRequest, header: RequestHeader) -> None:
    assert ours.id == message.id
    assert [bytes(view) for view in ours.raw] == list(message.raw_input_contents)
    assert_same_header(ours.header, header)


def assert_same_header(ours: RequestHeader, theirs: RequestHeader) -> None:
    for field in ("model_name", "model_version", "outputs", "priority", "timeout_us", "empty_final_response"):
        assert getattr(ours, field) == getattr(theirs, field)
    for mine, other in zip(ours.inputs, theirs.inputs, strict=True):
        assert (mine.name, mine.datatype, mine.shape, mine.region) == (
            other.name,
            other.datatype,
            other.shape,
            other.region,
        )
        np.testing.assert_array_equal(mine.typed, other.typed)


@settings(max_examples=300, deadline=None)
@given(requests())
def test_agrees_with_the_generated_class(message: pb.ModelInferRequest) -> None:
    assert_agrees_with_generated_class(message.SerializeToString())


@settings(max_examples=600, deadline=None)
@given(st.data(), requests())
def test_agrees_with_the_generated_class_on_damaged_messages(
    data: st.DataObject, message: pb.ModelInferRequest
) -> None:
    assert_agrees_with_generated_class(flip(data, message.SerializeToString()))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_agrees_with_the_generated_class_on_noise(message: bytes) -> None:
    assert_agrees_with_generated_class(message)


@settings(max_examples=300, deadline=None)
@given(parts())
def test_agrees_with_the_generated_class_in_any_order_and_with_odd_fields(message: bytes) -> None:
    assert_agrees_with_generated_class(message)
    assert_walk_agrees_with_generated_class(message)


@settings(max_examples=600, deadline=None)
@given(st.data(), good_requests())
def test_agrees_with_the_generated_class_on_damaged_good_messages(
    data: st.DataObject, message: pb.ModelInferRequest
) -> None:
    damaged = flip(data, message.SerializeToString())
    assert_agrees_with_generated_class(damaged)
    assert_walk_agrees_with_generated_class(damaged)


@settings(max_examples=100, deadline=None)
@given(good_requests())
def test_good_requests_are_accepted_and_no_beginning_of_one_is_misread(
    message: pb.ModelInferRequest,
) -> None:
    whole = message.SerializeToString()
    assert_same_request(RequestParser().parse(whole), message, make_header(message))
    for end in range(len(whole)):
        assert_agrees_with_generated_class(whole[:end])
        assert_walk_agrees_with_generated_class(whole[:end])


def test_raw_contents_are_views_of_the_message() -> None:
    message = request(raw_input_contents=[b"\7" * 12]).SerializeToString()
    parsed = RequestParser().parse(message)
    assert parsed.raw[0].obj is message
    assert bytes(parsed.raw[0]) == b"\7" * 12


def test_the_same_header_is_one_object_whatever_the_id_and_the_pixels() -> None:
    parser = RequestParser()
    first = parser.parse(request(id="1", raw_input_contents=[b"a" * 12]).SerializeToString())
    second = parser.parse(request(id="2", raw_input_contents=[b"b" * 12]).SerializeToString())
    assert first.header is second.header
    assert (first.id, second.id) == ("1", "2")


def test_a_header_without_contents_is_not_taken_for_a_request_that_has_them() -> None:
    parser = RequestParser()
    parser.parse(request(raw_input_contents=[b"a" * 12]).SerializeToString())
    with pytest.raises(InvalidArgument, match="expected contents for 1 inputs"):
        parser.parse(request(raw_input_contents=[]).SerializeToString())


def test_the_cache_of_headers_is_bounded() -> None:
    parser = RequestParser()
    for index in range(MAX_CACHED_HEADERS + 50):
        parser.parse(request(model_version=str(index), raw_input_contents=[b"a" * 12]).SerializeToString())
    assert len(parser._headers) == MAX_CACHED_HEADERS


def test_the_header_used_last_outlives_any_number_of_others() -> None:
    parser = RequestParser()
    steady = request(raw_input_contents=[b"a" * 12]).SerializeToString()
    header = parser.parse(steady).header
    for index in range(2 * MAX_CACHED_HEADERS):
        parser.parse(request(model_version=str(index), raw_input_contents=[b"a" * 12]).SerializeToString())
        assert parser.parse(steady).header is header


def test_long_headers_are_not_cached() -> None:
    message = request(raw_input_contents=[b"a" * 12])
    message.parameters["own"].string_param = "x" * MAX_CACHED_HEADER_BYTES
    parser = RequestParser()
    assert parser.parse(message.SerializeToString()).header.model_name == "cnn"
    assert not parser._headers


def test_typed_contents_are_not_cached() -> None:
    message = request()
    message.inputs[0].contents.uint_contents.extend(range(12))
    parser = RequestParser()
    parsed = parser.parse(message.SerializeToString())
    np.testing.assert_array_equal(parsed.header.inputs[0].typed, np.arange(12, dtype=np.uint8))
    assert not parser._headers


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (b"\x0a\x05abc", "cut short"),
        (b"\x0a", "no length"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "length of eleven bytes"),
        (b"\x0a\xff\xff\xff\xff\x7f", "length beyond 2 GiB"),
        (b"\x00", "field number 0"),
        (b"\x1a\x01\xff", "id that is not UTF-8"),
        (b"\x0b", "group without an end"),
        (b"\x0c", "end of no group"),
        (b"\x0f\x00", "wire type 7"),
    ],
)
def test_invalid_messages_are_refused(tail: bytes, why: str) -> None:
    message = request(raw_input_contents=[b"a" * 12]).SerializeToString() + tail
    with pytest.raises(DecodeError):
        pb.ModelInferRequest.FromString(message)
    with pytest.raises(InvalidArgument, match=r"not a valid inference|id is not valid UTF-8"):
        RequestParser().parse(message)


@pytest.mark.parametrize(
    "extra",
    [b"\x78\x01", b"\x7a\x02ab", b"\x79" + b"\0" * 8, b"\x7d" + b"\0" * 4, b"\x7b\x08\x01\x7c", b"\x08\x05"],
    ids=["varint", "bytes", "64 bit", "32 bit", "group", "known field of another wire type"],
)
def test_unknown_fields_are_skipped(extra: bytes) -> None:
    message = extra + request(id="7", raw_input_contents=[b"a" * 12]).SerializeToString()
    assert split_request(message) is None
    parsed = RequestParser().parse(message)
    assert (parsed.id, parsed.header.model_name, bytes(parsed.raw[0])) == ("7", "cnn", b"a" * 12)


def test_unknown_fields_do_not_make_another_header() -> None:
    parser = RequestParser()
    message = request(raw_input_contents=[b"a" * 12]).SerializeToString()
    headers = {parser.parse(message + bytes([0x78, value])).header for value in range(9)}
    assert len(headers) == 1


@pytest.mark.parametrize("padding", range(10))
def test_overlong_lengths_are_judged_as_the_generated_class_judges_them(padding: int) -> None:
    length = b"\x0c" if not padding else b"\x8c" + b"\x80" * (padding - 1) + b"\x00"
    assert_agrees_with_generated_class(request().SerializeToString() + b"\x3a" + length + b"a" * 12)


@pytest.mark.parametrize("first", [b"\xff", b"1", b""])
def test_of_two_ids_the_last_counts_and_both_must_be_valid(first: bytes) -> None:
    twice = b"\x1a" + bytes([len(first)]) + first + b"\x1a\x012" + request().SerializeToString()
    assert_agrees_with_generated_class(twice + b"\x3a\x01a")


def test_deep_nesting_is_refused_not_followed() -> None:
    message = request(raw_input_contents=[b"a" * 12]).SerializeToString() + b"\x7b" * 5000
    with pytest.raises(InvalidArgument):
        RequestParser().parse(message)


@settings(max_examples=50, deadline=None)
@given(RAW, st.booleans())
def test_contents_must_match_the_inputs(raw: list[bytes], typed: bool) -> None:
    message = request(raw_input_contents=raw)
    if typed:
        message.inputs[0].contents.uint_contents.append(1)
    assume((len(raw) != 1) if not typed else raw)
    with pytest.raises(InvalidArgument, match=r"expected contents for 1|never both"):
        RequestParser().parse(message.SerializeToString())


@pytest.mark.parametrize("unknown", [b"", b"\x78\x01"], ids=["walked", "by the generated class"])
def test_more_raw_contents_than_inputs_may_be_are_refused(unknown: bytes) -> None:
    message = unknown + request().SerializeToString() + b"\x3a\x00" * (MAX_TENSORS + 1)
    with pytest.raises(InvalidArgument, match=f"{MAX_TENSORS} raw_input_contents, got {MAX_TENSORS + 1}"):
        RequestParser().parse(message)


def test_very_many_fields_are_left_to_the_generated_class() -> None:
    message = request(id="7", raw_input_contents=[b"a" * 12]).SerializeToString()
    walked = b"\x0a\x00" * (MAX_WALKED_FIELDS - 2) + message
    assert split_request(walked) is not None
    assert split_request(b"\x0a\x00" + walked) is None
    assert_agrees_with_generated_class(b"\x0a\x00" + walked)
