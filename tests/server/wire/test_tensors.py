from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidArgument
from server.wire.tensors import classify, pack_bytes, unpack_bytes


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_packed_bytes_unpack_to_the_same(elements: list[bytes]) -> None:
    raw = memoryview(pack_bytes(elements))
    assert [bytes(element) for element in unpack_bytes(raw, len(elements))] == elements


@given(st.binary(max_size=40), st.integers(0, 5))
def test_unpacking_noise_is_refused_or_exact(noise: bytes, count: int) -> None:
    try:
        elements = unpack_bytes(memoryview(noise), count)
    except InvalidArgument:
        return
    assert pack_bytes([bytes(element) for element in elements]) == noise


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"\5\0\0\0abc", 1, "element 0 .* runs past the end of its 7 bytes"),
        (b"\1\0\0", 1, "runs past the end"),
        (b"\2\0\0\0a", 1, "runs past the end of its 5 bytes"),
        (b"\1\0\0\0a", 2, "must hold 2 elements, got 1"),
        (b"\1\0\0\0ab", 1, "got 1 and 1 bytes more"),
        (b"\xff\xff\xff\xff", 1, "runs past the end"),
    ],
)
def test_unpacking_says_what_is_wrong(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        unpack_bytes(memoryview(raw), count)


def test_classify_ranks_each_row_and_appends_labels() -> None:
    scores = np.array([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]], dtype=np.float32)
    assert classify(scores, 2, ("cat", "dog")) == [
        b"0.500000:1:dog",
        b"0.250000:0:cat",
        b"1.000000:2",
        b"0.000000:0:cat",
    ]


def test_classify_clips_k_ranks_nan_last_and_takes_integers() -> None:
    assert classify(np.array([[np.nan, 1.0]], dtype=np.float32), 9, ()) == [b"1.000000:1", b"nan:0"]
    assert classify(np.array([[3, 250]], dtype=np.uint8), 1, ()) == [b"250:1"]


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    scores = np.zeros((1, 1000), dtype=np.float32)
    scores[0, ::3] = 0.5
    assert classify(scores, 5, ()) == [f"0.500000:{index}".encode() for index in (0, 3, 6, 9, 12)]
