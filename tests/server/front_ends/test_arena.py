from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.front_ends.arena import (
    ALIGNMENT,
    ARENA_BYTES,
    Blocks,
    aligned,
    give_pages_back,
    make_arena,
    open_arena,
)

NBYTES = 1 << 18


@given(st.lists(st.tuples(st.booleans(), st.integers(0, NBYTES)), max_size=60))
def test_blocks_in_use_never_overlap_and_always_lie_inside(steps: list[tuple[bool, int]]) -> None:
    blocks, taken = Blocks(NBYTES), {}
    for take, number in steps:
        if take:
            offset = blocks.take(number)
            if offset is not None:
                taken[offset] = number
        elif number % 7 == 0:
            start, stop = blocks.trim()
            assert all(offset + nbytes <= start for offset, nbytes in taken.items())
            assert stop <= NBYTES
        elif taken:
            offset = sorted(taken)[number % len(taken)]
            blocks.give_back(offset)
            del taken[offset]
        spans = sorted((start, start + nbytes) for start, nbytes in taken.items())
        assert all(0 <= start <= stop <= NBYTES for start, stop in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_full_arena_says_so_and_is_whole_again_once_nothing_is_taken() -> None:
    blocks = Blocks(NBYTES)
    small = [blocks.take(1) for _ in range(NBYTES // (1 << 14))]
    assert None not in small
    assert blocks.take(1) is None
    for offset in small:
        blocks.give_back(offset)
    assert blocks.take(NBYTES) == 0
    assert blocks.take(1) is None


def test_the_lowest_block_of_a_size_is_taken_first() -> None:
    blocks = Blocks(NBYTES)
    first, second, third = blocks.take(100), blocks.take(100), blocks.take(100)
    blocks.give_back(third)
    blocks.give_back(first)
    assert (blocks.take(100), blocks.take(100)) == (first, third)
    assert second not in (first, third)


def test_the_same_requests_write_the_same_pages_in_whatever_order_they_come_and_go() -> None:
    blocks, written = Blocks(NBYTES), set()
    small, large = 1 << 14, 1 << 16
    for sizes in [(small, large, small), (large, small, small), (large,), (small, small, large)] * 3:
        taken = [blocks.take(size) for size in sizes]
        written |= {(offset, size) for offset, size in zip(taken, sizes, strict=True)}
        for offset in taken:
            blocks.give_back(offset)
    assert len(written) == 3
    assert sum(size for _, size in written) == 2 * small + large


def test_blocks_of_one_size_make_room_for_another_though_some_are_taken() -> None:
    blocks = Blocks(NBYTES)
    small = [blocks.take(1) for _ in range(NBYTES // (1 << 14))]
    for offset in small[1:]:
        blocks.give_back(offset)
    assert blocks.take(NBYTES // 2) == small[1]
    blocks.give_back(small[0])
    assert blocks.take(1) == small[0]
    assert blocks.take(NBYTES // 2) is None


def test_what_no_request_has_needed_for_a_while_is_given_up() -> None:
    blocks, size = Blocks(NBYTES), 1 << 14
    burst = [blocks.take(1) for _ in range(4)]
    for offset in burst:
        blocks.give_back(offset)
    assert blocks.trim() == (4 * size, 4 * size)  # the burst was since the last time
    blocks.give_back(blocks.take(1))
    assert blocks.trim() == (size, 4 * size)
    assert blocks.trim() == (0, size)
    held = [blocks.take(1) for _ in range(3)]
    blocks.give_back(held[0])
    blocks.trim()
    assert blocks.trim() == (3 * size, 3 * size)  # the third is still taken
    assert [blocks.take(1), blocks.take(1)] == [held[0], 3 * size]


def test_pages_that_are_given_back_take_no_memory() -> None:
    descriptor = make_arena()
    arena = open_arena(os.dup(descriptor))
    arena[: 1 << 20] = b"x" * (1 << 20)
    before = os.fstat(descriptor).st_blocks
    give_pages_back(arena, 5000, (1 << 20) - 5000)
    assert os.fstat(descriptor).st_blocks * 512 <= 5 * 4096 < before * 512
    assert (arena[4999], arena[5000], arena[(1 << 20) - 5000]) == (ord("x"),) * 3
    assert arena[9000] == 0
    give_pages_back(arena, 100, 100)
    os.close(descriptor)


def test_more_than_the_arena_holds_has_no_block() -> None:
    assert Blocks(NBYTES).take(NBYTES + 1) is None


@given(st.integers(0, 1 << 20))
def test_alignment(nbytes: int) -> None:
    assert aligned(nbytes) % ALIGNMENT == 0
    assert 0 <= aligned(nbytes) - nbytes < ALIGNMENT


def test_both_ends_see_one_memory_that_nobody_can_make_smaller() -> None:
    descriptor = make_arena()
    ours, theirs = open_arena(os.dup(descriptor)), open_arena(os.dup(descriptor))
    ours[100:103] = b"abc"
    assert bytes(theirs[99:104]) == b"\0abc\0"
    assert len(ours) == len(theirs) == ARENA_BYTES
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 4096)
    os.close(descriptor)
