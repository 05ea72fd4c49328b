"""Batches between two sizes that an engine serves: filled up to the next one, and the waste counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

from server.engines.device_rows import NOTHING, Exchange, begin_exchanging, exchanging, run_exchanging
from server.engines.engine import Array, Engine, TensorSpec
from server.engines.overlapping import Overlapping, overlapping
from server.engines.slots import input_check
from server.errors import EngineError


def padded(engine: Engine) -> Engine:
    """Let an engine take any batch up to its largest; the engine itself where it does already.

    Raises:
        EngineError: the sizes that the engine says it serves make no sense.
    """
    if not engine.served_batches:
        return engine
    check_served_batches(engine.served_batches, engine.max_batch)
    for buffer in engine.input_buffers:  # what nobody has written yet is computed too: zeros harm no network
        buffer.fill(0)
    return PaddedEngine(engine)


def check_served_batches(sizes: Sequence[int], max_batch: int) -> None:
    """Raise EngineError unless the sizes ascend from at least 1 and end with `max_batch`."""
    ascending = all(small < large for small, large in pairwise(sizes))
    if not sizes or sizes[0] < 1 or not ascending or sizes[-1] != max_batch:
        given = ", ".join(map(str, sizes)) or "none"
        raise EngineError(
            f"served batch sizes must ascend from at least 1 and end with the largest batch, {max_batch}; "
            f"got {given}"
        )


def default_served_batches(max_batch: int) -> tuple[int, ...]:
    """Powers of two up to the largest batch, and that: at most half of a batch is ever padding."""
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent < max_batch]
    return (*powers, max_batch) if max_batch else ()


class _Batch(NamedTuple):
    """What to run for a batch.

    Args:
        filled: what the engine is given.
        images: rows asked for.
        vain: rows beyond these.
    """

    filled: tuple[Array, ...]
    images: int
    vain: int


_NO_BATCH = _Batch((), 0, 0)


class PaddedEngine:
    """An engine behind the rounding up of batches; made by `padded`. See `Engine` for the methods.

    The rows that fill a batch hold whatever their slots held: zeros or earlier images. Networks compute rows
    apart from each other, so this changes no answer, and nothing need be cleared.

    After a run on the CPU little is left in the caches, and every piece of code and data costs a microsecond
    to fetch: what to run for rows of the engine's own is looked up by their identity, and by nothing else.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        sizes = engine.served_batches
        self._size_for = {n: sizes[bisect_left(sizes, n)] for n in range(1, engine.max_batch + 1)}
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs
        self.max_batch: int = engine.max_batch
        self._check = input_check(engine.inputs, engine.max_batch)
        self.served_batches: tuple[int, ...] = engine.served_batches
        self.platform: str = engine.platform
        self.simulated: bool = engine.simulated
        self.reads_foreign_memory: bool = engine.reads_foreign_memory
        self.any_thread: bool = engine.any_thread
        self.overlaps: bool = overlapping(engine) is not None
        self.exchanges: bool = exchanging(engine) is not None
        self.padded_images: int = 0
        self._begun: deque[_Batch] = deque()
        self._known: dict[int, _Batch] = {}

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The engine's own."""
        return self._engine.input_buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The engine's own."""
        return self._engine.slots(images)

    def run(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> tuple[Array, ...]:
        """Run one batch at the next size that is served, and return the rows that were asked for."""
        engine = self._engine
        filled, images, vain = self._known.get(id(inputs)) or self._filled(inputs)
        outputs = engine.run(filled) if exchange is NOTHING else run_exchanging(engine, filled, exchange)
        return self._cut(outputs, images, vain)

    def begin(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> None:
        """Begin one batch likewise, on an engine that `overlaps`."""
        batch = self._known.get(id(inputs)) or self._filled(inputs)
        begin_exchanging(cast("Overlapping", self._engine), batch.filled, exchange)
        self._begun.append(batch)

    def finish(self) -> tuple[Array, ...]:
        """Return the rows that were asked for of the batch begun first."""
        _, images, vain = self._begun.popleft() if self._begun else _NO_BATCH
        return self._cut(cast("Overlapping", self._engine).finish(), images, vain)

    def _filled(self, inputs: tuple[Array, ...]) -> _Batch:
        """Lay a batch into the slots where rows are missing, unless it lies there, and return what to run."""
        images = len(inputs[0]) if inputs else 0
        if images not in self._size_for:  # no batch: the engine says so
            return _Batch(inputs, images, 0)
        own = self._engine.slots(images)
        batch = self._known.get(id(own)) or self._know(own, images)
        if own is inputs:
            return batch
        if not batch.vain:
            return _Batch(inputs, images, 0)
        self._lay(own, inputs)
        return batch

    def _lay(self, own: tuple[Array, ...], inputs: tuple[Array, ...]) -> None:
        """Copy a batch into the slots, once it is known to be one: whatever looks as they do is."""
        if len(inputs) != len(own):
            self._check(inputs)
        for slot, array in zip(own, inputs, strict=True):
            if array.shape != slot.shape or array.strides != slot.strides or array.dtype is not slot.dtype:
                self._check(inputs)
            slot[...] = array

    def _know(self, own: tuple[Array, ...], images: int) -> _Batch:
        size = self._size_for[images]
        batch = self._known[id(own)] = _Batch(self._engine.slots(size), images, size - images)
        return batch

    def _cut(self, outputs: tuple[Array, ...], images: int, vain: int) -> tuple[Array, ...]:
        if not vain:
            return outputs
        self.padded_images += vain
        return tuple([output[:images] for output in outputs])

    def close(self) -> None:
        """Close the engine."""
        self._known.clear()
        self._engine.close()
