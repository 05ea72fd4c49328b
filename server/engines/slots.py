"""What a batch must look like before a framework sees it, and where it lies: checks and slots for engines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.engines.engine import Array, TensorSpec
from server.errors import EngineError

DEFAULT_MAX_BATCH = 64
"""Largest batch when the graph leaves it open and nobody configured it (less for very large inputs)."""

BUFFER_BYTES_MAX = 2 << 30
"""Bound on the input buffers of one engine."""


def check_inputs(specs: Sequence[TensorSpec], max_batch: int, inputs: Sequence[Array]) -> None:
    """Raise EngineError unless the arrays are a batch for these specs: count, dtypes, shapes, contiguity.

    Args:
        specs: the network's inputs in graph order.
        max_batch: most images; 0: the network has no batch dimension, and shapes are whole.
        inputs: one array per input, `[n, *shape]`, 1 <= n <= max_batch.
    """
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


def into_slots(buffers: Sequence[Array], inputs: Sequence[Array], *, batched: bool) -> None:
    """Copy the inputs into the first rows of the buffers, those that do not lie there already."""
    for buffer, array in zip(buffers, inputs, strict=True):
        # Numpy copies nothing onto itself, and finds that out sooner than Python learns an address.
        np.copyto(buffer[: len(array)] if batched else buffer, array)


def _mismatch(spec: TensorSpec, array: Array, *, batched: bool) -> str:
    rows = ["batch"] if batched else []
    expected = f"a contiguous {spec.dtype} array of shape {[*rows, *spec.shape]}"
    return f"input '{spec.name}' takes {expected}, got {array.dtype} of shape {list(array.shape)}"
