"""What a batch must look like before a framework sees it, and where it lies: checks and slots for engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from server.engines.engine import Array, TensorSpec
from server.errors import EngineError

DEFAULT_MAX_BATCH = 64
"""Largest batch when the graph leaves it open and nobody configured it (less for very large inputs)."""

BUFFER_BYTES_MAX = 2 << 30
"""Bound on the input buffers of one engine."""


def input_check(specs: Sequence[TensorSpec], max_batch: int) -> Callable[[Sequence[Array]], None]:
    """Return what raises EngineError unless arrays are a batch: count, dtypes, shapes, contiguity.

    It takes one array per input, `[n, *shape]`, 1 <= n <= max_batch. What passed once passes again: only the
    shapes, strides and dtypes that passed last are compared. After a run on the CPU all else has left the
    caches, so that a check costs what it reads, not what it reckons: 9 us in place of 30 after 24 MB.

    Args:
        specs: the network's inputs in graph order.
        max_batch: most images; 0: the network has no batch dimension, and shapes are whole.
    """
    passed: dict[tuple[int, ...], tuple[_Form, ...]] = {}

    def check(inputs: Sequence[Array]) -> None:
        forms = passed.get(inputs[0].shape, ()) if inputs else ()
        if len(forms) == len(inputs):
            for (shape, strides, dtype), array in zip(forms, inputs, strict=True):
                if array.shape != shape or array.strides != strides or array.dtype is not dtype:
                    break
            else:
                return
        _check_inputs(specs, max_batch, inputs)
        passed[inputs[0].shape] = tuple((array.shape, array.strides, array.dtype) for array in inputs)

    return check


_Form = tuple[tuple[int, ...], tuple[int, ...], np.dtype[np.generic]]


def _check_inputs(specs: Sequence[TensorSpec], max_batch: int, inputs: Sequence[Array]) -> None:
    if len(inputs) != len(specs):
        raise EngineError(f"the model has {len(specs)} inputs, got {len(inputs)}")
    first = 1 if max_batch else 0
    images = inputs[0].shape[:first]
    for spec, array in zip(specs, inputs, strict=True):
        shape = array.shape
        same = shape[first:] == spec.shape and shape[:first] == images and array.dtype == spec.dtype
        if not same or not array.flags.c_contiguous:
            raise EngineError(_mismatch(spec, array, batched=max_batch > 0))
    if max_batch and not 1 <= sum(images) <= max_batch:
        raise EngineError(f"a batch holds 1 to {max_batch} images, got {sum(images)}")


def largest_batch(specs: Sequence[TensorSpec], wanted: int | None, *, batched: bool) -> int:
    """Return the largest batch in images, 0 without a batch dimension; its buffers keep to a bound.

    Raises:
        EngineError: `wanted` is out of bounds, or there is no batch dimension to apply it to.
    """
    image_bytes = sum(spec.item_bytes for spec in specs)
    largest = BUFFER_BYTES_MAX // image_bytes
    if not largest:
        raise EngineError(f"one item takes {image_bytes} bytes; at most {BUFFER_BYTES_MAX} are allowed")
    if not batched:
        if wanted is not None:
            raise EngineError(
                f"max_batch is {wanted}, but the graph has no dynamic batch dimension; leave it out"
            )
        return 0
    if wanted is None:
        return min(DEFAULT_MAX_BATCH, largest)
    if not 1 <= wanted <= largest:
        raise EngineError(
            f"max_batch is {wanted}; 1 to {largest} are allowed for items of {image_bytes} bytes"
        )
    return wanted


def make_buffers(specs: Sequence[TensorSpec], max_batch: int) -> tuple[Array, ...]:
    """Return empty input buffers; the system backs them with memory only as far as rows are written."""
    rows = (max_batch,) if max_batch else ()
    return tuple(np.empty(rows + spec.shape, spec.dtype) for spec in specs)


class InputSlots:
    """An engine's input buffers, and the rows of each size, which are known again when they come back.

    What a run on the CPU left of the caches is little, so that what need not be looked at is not: no shapes,
    no addresses, no views made for every batch.

    Args:
        buffers: one per input, `[max_batch, *shape]`.
        max_batch: most images; 0: the network has no batch dimension, and the buffers are whole inputs.
    """

    __slots__ = ("_first", "_handed_out", "_max_batch", "buffers")

    def __init__(self, buffers: Sequence[Array], max_batch: int) -> None:
        self.buffers = tuple(buffers)
        self._max_batch = max_batch
        self._first: dict[int, tuple[Array, ...]] = {}
        self._handed_out = set() if max_batch else {id(self.buffers)}

    def first(self, images: int) -> tuple[Array, ...]:
        """Return the first rows, the same tuple for a number of images each time; see `Engine.slots`."""
        rows = self._first.get(images)
        return self._made(images) if rows is None else rows

    def own(self, inputs: tuple[Array, ...]) -> bool:
        """Whether this very tuple came from `first`: it is a batch, and lies where it belongs."""
        return id(inputs) in self._handed_out  # what `first` returned lives as long as this

    def take(self, inputs: tuple[Array, ...], check: Callable[[Sequence[Array]], None]) -> None:
        """Copy a batch from elsewhere into the first rows, once it has passed a check."""
        if id(inputs) not in self._handed_out:
            check(inputs)
            into_slots(self.buffers, inputs, batched=self._max_batch > 0)

    def _made(self, images: int) -> tuple[Array, ...]:
        if not self._max_batch:
            rows = self.buffers
        elif 1 <= images <= self._max_batch:
            rows = tuple([buffer[:images] for buffer in self.buffers])
        else:
            raise EngineError(f"a batch holds 1 to {self._max_batch} images, got {images}")
        self._first[images] = rows
        self._handed_out.add(id(rows))
        return rows


def into_slots(buffers: Sequence[Array], inputs: Sequence[Array], *, batched: bool) -> None:
    """Copy the inputs into the first rows of the buffers, those that do not lie there already."""
    for buffer, array in zip(buffers, inputs, strict=True):
        # Numpy copies nothing onto itself, and finds that out sooner than Python learns an address; an
        # assignment finds it out with half of what `np.copyto` reads.
        buffer[slice(len(array)) if batched else ...] = array


def _mismatch(spec: TensorSpec, array: Array, *, batched: bool) -> str:
    rows = ["batch"] if batched else []
    expected = f"a contiguous {spec.dtype} array of shape {[*rows, *spec.shape]}"
    return f"input '{spec.name}' takes {expected}, got {array.dtype} of shape {list(array.shape)}"
