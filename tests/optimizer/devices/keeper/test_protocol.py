from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.keeper.lines import LineBuffer, LineTooLong
from optimizer.devices.keeper.protocol import (
    LONGEST_LINE,
    Acquire,
    AskBounds,
    Hello,
    Refusal,
    Refused,
    Release,
    Renew,
    Request,
    Set,
    bounds_facts,
    bounds_from,
    encode_answer,
    encode_refusal,
    encode_request,
    parse_answer,
    parse_request,
)
from optimizer.devices.nvml.actuator import ClockBounds

MHZ = st.none() | st.integers(1, 10_000)
WATTS = st.none() | st.floats(0.001, 1e4)
REQUESTS = st.one_of(
    st.builds(Hello, st.integers()),
    st.builds(AskBounds, st.text(max_size=100)),
    st.builds(Acquire, st.text(max_size=100)),
    st.builds(Set, MHZ, MHZ, WATTS),
    st.just(Renew()),
    st.just(Release()),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
VALID = {
    "hello": {"version": 1},
    "bounds": {"uuid": "GPU-1"},
    "acquire": {"uuid": "GPU-1"},
    "set": {"sm_clock_mhz": 1000, "memory_clock_mhz": None, "power_limit_w": 100.5},
    "renew": {},
    "release": {},
}


def refusal_of(line: bytes) -> Refusal | None:
    try:
        parse_request(line)
    except Refused as refused:
        return refused.code
    return None


@given(REQUESTS)
def test_a_request_survives_the_wire(request_sent: Request) -> None:
    line = encode_request(request_sent)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_request(line.rstrip(b"\n")) == request_sent


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(line: bytes) -> None:
    assert refusal_of(line) is Refusal.MALFORMED


@given(st.dictionaries(st.sampled_from(["op", "uuid", "version", "sm_clock_mhz", "power_limit_w"]), JSON))
def test_no_object_does_more_than_be_refused(message: dict[str, object]) -> None:
    assert refusal_of(json.dumps(message).encode()) in (None, Refusal.MALFORMED)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b'"renew"',
        b"{",
        b'{"op":"renew"}trailing',
        b'{"op":"renew","op":"release"}',
        b'{"op":["renew"]}',
        b'{"op":"RENEW"}',
        b'{"op":"renew","uuid":"GPU-1"}',
        b'{"op":"acquire"}',
        b'{"op":"acquire","uuid":7}',
        b'{"op":"hello","version":true}',
        b"\xff\xfe",
        b"[" * LONGEST_LINE,
        b'{"a":' * 800,
        b'{"op":"hello","version":' + b"9" * 4000 + b"}x",
    ],
)
def test_what_is_not_exactly_a_request_is_refused(line: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_request(line)
    assert caught.value.code is Refusal.MALFORMED
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["1000", True, 0, -1, 1000.5, [], {}])
def test_a_clock_is_a_whole_number_above_0_or_null(value: object) -> None:
    message = {"op": "set"} | VALID["set"] | {"sm_clock_mhz": value}
    with pytest.raises(Refused, match="sm_clock_mhz must be a whole number of MHz above 0, or null"):
        parse_request(json.dumps(message).encode())


@pytest.mark.parametrize("value", ["100", True, 0, -0.5, "NaN", 10**400, [], {}])
def test_a_power_limit_is_a_number_above_0_or_null(value: object) -> None:
    message = {"op": "set"} | VALID["set"] | {"power_limit_w": value}
    with pytest.raises(Refused, match="power_limit_w must be a number of watts above 0, or null"):
        parse_request(json.dumps(message).encode())


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    line = '{"op":"set","sm_clock_mhz":null,"memory_clock_mhz":null,"power_limit_w":' + text + "}"
    with pytest.raises(Refused):
        parse_request(line.encode())


@pytest.mark.parametrize("op", VALID)
def test_every_missing_and_every_added_value_is_refused(op: str) -> None:
    whole = {"op": op} | VALID[op]
    parse_request(json.dumps(whole).encode())
    for name in VALID[op]:
        without = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(Refused):
            parse_request(json.dumps(without).encode())
    with pytest.raises(Refused):
        parse_request(json.dumps(whole | {"more": 1}).encode())


@given(st.sampled_from(Refusal), st.text())
def test_a_refusal_survives_the_wire(code: Refusal, text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_answer(encode_refusal(Refused(code, text)).rstrip(b"\n"))
    assert (caught.value.code, str(caught.value)) == (code, text)


@given(
    st.builds(
        ClockBounds,
        st.integers(1, 5000),
        st.integers(1, 5000),
        st.none() | st.floats(1, 1000),
        st.none() | st.floats(1, 1000),
        st.lists(st.integers(1, 9000), max_size=8).map(tuple),
    )
)
def test_bounds_survive_the_wire(bounds: ClockBounds) -> None:
    assert bounds_from(parse_answer(encode_answer(bounds_facts(bounds)).rstrip(b"\n"))) == bounds


@pytest.mark.parametrize(
    "facts", [{}, {"bounds": None}, {"bounds": []}, {"bounds": {"sm_low_mhz": "x", "sm_high_mhz": 1}}]
)
def test_bounds_that_are_none_are_refused(facts: dict[str, object]) -> None:
    with pytest.raises(Refused):
        bounds_from(facts)


@pytest.mark.parametrize(
    "line", [b"{}", b'{"ok":1}', b'{"ok":false}', b'{"ok":false,"code":"x","error":"y"}']
)
def test_an_answer_of_another_kind_is_noticed(line: bytes) -> None:
    with pytest.raises(Refused):
        parse_answer(line)


@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
    st.integers(1, 5),
)
def test_lines_come_out_as_they_went_in_however_they_are_cut(
    lines: list[bytes], half: bytes, step: int
) -> None:
    stream = b"".join(line + b"\n" for line in lines) + half
    buffer, found = LineBuffer(12), []
    for start in range(0, len(stream), step):
        buffer.feed(stream[start : start + step])
        while (line := buffer.take()) is not None:
            found.append(line)
    assert found == lines


@given(st.integers(0, 40), st.integers(1, 10), st.booleans())
def test_a_line_may_be_as_long_as_allowed_and_no_longer(length: int, step: int, ended: bool) -> None:
    stream = b"x" * length + (b"\n" if ended else b"")
    buffer = LineBuffer(20)

    def feed() -> None:
        for start in range(0, len(stream), step):
            buffer.feed(stream[start : start + step])

    if length > 20:
        with pytest.raises(LineTooLong):
            feed()
    else:
        feed()
        assert (buffer.take() is not None) == ended
