from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from server.front_ends.frames import (
    METHODS,
    NO_CALL,
    FrameReader,
    Kind,
    Message,
    Referred,
    RefusalText,
    pack,
    pack_message,
    pack_number,
    pack_referred,
    pack_refusal,
    unpack_message,
    unpack_number,
    unpack_referred,
    unpack_refusal,
)

NUMBERS = st.integers(0, 2**64 - 1)
DEADLINES = st.floats(0, 1e9) | st.just(math.inf)


@given(st.lists(st.tuples(st.sampled_from(Kind), NUMBERS, st.binary(max_size=300))), st.data())
def test_frames_come_out_as_they_went_in_however_the_socket_cuts_them(
    frames: list[tuple[Kind, int, bytes]], data: st.DataObject
) -> None:
    sent = b"".join(pack(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    reader, received = FrameReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        received += reader.feed(sent[start:stop])
    assert received == [tuple(frame) for frame in frames]


@given(NUMBERS, DEADLINES, st.integers(0, len(METHODS) - 1), st.binary())
def test_messages(call: int, deadline_s: float, method: int, message: bytes) -> None:
    (frame,) = FrameReader().feed(pack_message(call, Message(deadline_s, method, message)))
    assert (frame.kind, frame.call) == (Kind.MESSAGE, call)
    assert unpack_message(frame.body) == (deadline_s, method, message)


@given(
    NUMBERS,
    st.builds(
        Referred,
        DEADLINES,
        st.booleans(),
        st.binary(max_size=40),
        st.binary(max_size=90),
        st.lists(st.tuples(NUMBERS, NUMBERS), max_size=64),
    ),
)
def test_requests_that_refer_to_memory(call: int, request: Referred) -> None:
    (frame,) = FrameReader().feed(pack_referred(call, request))
    assert (frame.kind, frame.call) == (Kind.REFERRED, call)
    assert unpack_referred(frame.body) == request


@given(NUMBERS, st.builds(RefusalText, st.integers(0, 16), st.floats(-1, 100), st.text()))
def test_refusals(call: int, refusal: RefusalText) -> None:
    (frame,) = FrameReader().feed(pack_refusal(call, refusal))
    expected = refusal.details.encode("utf-8", "replace").decode()
    assert unpack_refusal(frame.body) == (refusal.code, refusal.retry_after_s, expected)


def test_what_the_core_says_of_itself() -> None:
    (frame,) = FrameReader().feed(pack_number(Kind.STOP, 2.5))
    assert (frame.kind, frame.call, unpack_number(frame.body)) == (Kind.STOP, NO_CALL, 2.5)
