from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.engines.engine import Array, TensorSpec
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import check_served_batches, default_served_batches, padded
from server.engines.slots import InputSlots
from server.errors import EngineError

SIZES = (1, 4, 6)


class Native:
    """Doubles batches of the sizes it serves and refuses others, as an engine with profiles does."""

    inputs = (TensorSpec("x", "FP32", (2,)),)
    outputs = (TensorSpec("y", "FP32", (2,)),)
    max_batch = 6
    platform = "native"
    simulated = any_thread = False
    padded_images = 0

    def __init__(self, sizes: tuple[int, ...] = SIZES, *, reads_foreign_memory: bool = False) -> None:
        self.served_batches = sizes
        self.reads_foreign_memory = reads_foreign_memory
        self.input_buffers: tuple[Array, ...] = (np.full((6, 2), np.nan, np.float32),)
        self._slots = InputSlots(self.input_buffers, 6)
        self.given: list[Array] = []
        self.closed = False

    def slots(self, images: int) -> tuple[Array, ...]:
        return self._slots.first(images)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(inputs[0]) not in self.served_batches:
            raise EngineError(f"no profile for {len(inputs[0])}")
        self.given.append(inputs[0])
        return (np.asarray(inputs[0]) * 2,)

    def close(self) -> None:
        self.closed = True


def images(count: int) -> Array:
    return np.arange(1, 2 * count + 1, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 4), (3, 4), (4, 4), (5, 6), (6, 6)])
def test_a_batch_runs_at_the_next_size_and_keeps_its_rows(count: int, size: int) -> None:
    native = Native()
    engine = padded(native)
    slots = engine.input_buffers[0][:count]
    slots[...] = images(count)
    (out,) = engine.run((slots,))
    assert np.array_equal(out, images(count) * 2)
    assert [len(given) for given in native.given] == [size]
    assert engine.padded_images == size - count


def test_slots_go_to_the_engine_as_its_own_and_are_never_copied() -> None:
    native = Native()
    engine = padded(native)
    for count, size in ((3, 4), (4, 4), (3, 4)):
        slots = engine.slots(count)
        slots[0][...] = images(count)
        (out,) = engine.run(slots)
        assert np.array_equal(out, images(count) * 2)
        assert native.given[-1] is native.slots(size)[0]
    assert engine.padded_images == 2


def test_a_batch_from_elsewhere_is_checked_though_one_of_its_size_passed() -> None:
    native = Native()
    engine = padded(native)
    engine.run(engine.slots(3))
    with pytest.raises(EngineError):
        engine.run((np.zeros((3, 3), np.float32),))
    assert len(native.given) == 1


def test_waste_adds_up() -> None:
    engine = padded(Native())
    for count in (2, 5, 6, 3):
        engine.run((engine.input_buffers[0][:count],))
    assert engine.padded_images == 2 + 1 + 0 + 1


def test_what_nobody_wrote_is_zero() -> None:
    native = Native()
    padded(native).run((images(2),))
    assert np.array_equal(native.given[0], np.vstack([images(2), np.zeros((2, 2))]))


def test_memory_of_others_is_copied_only_where_rows_are_missing() -> None:
    native = Native(reads_foreign_memory=True)
    engine = padded(native)
    whole, short = images(4), images(3)
    engine.run((whole,))
    engine.run((short,))
    assert native.given[0] is whole
    assert np.shares_memory(native.given[1], engine.input_buffers[0])


@pytest.mark.parametrize(
    "batch", [images(0), images(7), np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float64)]
)
def test_wrong_input_is_refused_before_anything_runs(batch: Array) -> None:
    native = Native()
    engine = padded(native)
    with pytest.raises(EngineError):
        engine.run((batch,))
    assert not native.given
    assert engine.padded_images == 0


def test_close_reaches_the_engine() -> None:
    native = Native()
    padded(native).close()
    assert native.closed


def test_an_engine_that_serves_every_size_is_left_alone(write_model: Callable[..., Path]) -> None:
    engine = load_onnxruntime_engine(write_model(), max_batch=4, threads=1)
    assert padded(engine) is engine


@pytest.mark.parametrize("sizes", [(0, 6), (4, 1, 6), (1, 1, 6), (1, 4), (1, 6, 8)])
def test_sizes_that_make_no_sense(sizes: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"must ascend from at least 1 and end with the largest batch, 6"):
        padded(Native(sizes))


def test_no_sizes_at_all() -> None:
    with pytest.raises(EngineError, match="got none"):
        check_served_batches((), 6)


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(0, ()), (1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_sizes_where_nobody_named_any(max_batch: int, sizes: tuple[int, ...]) -> None:
    assert default_served_batches(max_batch) == sizes


@pytest.mark.parametrize("max_batch", range(1, 70))
def test_sizes_where_nobody_named_any_can_be_served(max_batch: int) -> None:
    check_served_batches(default_served_batches(max_batch), max_batch)
