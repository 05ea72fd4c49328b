"""Running one batch: assemble, compute, check. Whatever the engine raises becomes the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from optimizer.batching import Batch
from server.engines.device_rows import begin_exchanging, run_exchanging
from server.engines.engine import Array, Engine
from server.engines.overlapping import Overlapping
from server.scheduling.batch_assembly import (
    Call,
    Piece,
    assemble,
    check_outputs,
    exchange_of,
    still_wanted,
)
from server.scheduling.statistics import as_ns


class Outcome(NamedTuple):
    """What became of a batch. `pieces` are those that were still wanted; none: nothing ran.

    Exactly one of `outputs` and `error` is set when something ran. `images` are the rows that ran, `times_ns`
    how long assembly and the engine took.
    """

    pieces: tuple[Piece, ...]
    images: int
    outputs: tuple[Array, ...] | None
    error: BaseException | None
    started_s: float
    computed_s: float
    times_ns: tuple[int, int]


def run_batch(engine: Engine, clock: Callable[[], float], batch: Batch[Call]) -> Outcome:
    """Run what is still wanted of a batch. Never raises."""
    started_s = assembled_s = clock()
    outputs, error = None, None
    pieces = still_wanted(batch.slices)
    images = sum(piece.images for piece in pieces)
    if pieces:
        try:
            inputs = assemble(engine, pieces)
            assembled_s = clock()
            outputs = tuple(run_exchanging(engine, inputs, exchange_of(engine, pieces)))
            check_outputs(engine, outputs, images)
        except BaseException as raised:  # whatever it is, the requests of this batch must be answered
            outputs, error = None, raised
    computed_s = clock()
    times_ns = (as_ns(assembled_s - started_s), as_ns(computed_s - assembled_s))
    return Outcome(pieces, images, outputs, error, started_s, computed_s, times_ns)


class Begun(NamedTuple):
    """A batch that an overlapping engine has begun; with an `error` or without pieces it has not."""

    pieces: tuple[Piece, ...]
    images: int
    error: BaseException | None
    started_s: float
    assembled_s: float


def begin_batch(engine: Overlapping, clock: Callable[[], float], batch: Batch[Call]) -> Begun:
    """Begin what is still wanted of a batch. Never raises."""
    started_s = assembled_s = clock()
    error = None
    pieces = still_wanted(batch.slices)
    if pieces:
        try:
            inputs = assemble(engine, pieces)
            assembled_s = clock()
            begin_exchanging(engine, inputs, exchange_of(engine, pieces))
        except BaseException as raised:  # as in run_batch
            error = raised
    return Begun(pieces, sum(piece.images for piece in pieces), error, started_s, assembled_s)


def finish_batch(engine: Overlapping, clock: Callable[[], float], begun: Begun, before_s: float) -> Outcome:
    """Wait for a batch that was begun. Never raises.

    Args:
        engine: what began it.
        clock: seconds, monotonic.
        begun: the batch.
        before_s: when the batch before it was done: until then this one took no time of the engine's.
    """
    outputs, error = None, begun.error
    if begun.pieces and error is None:
        try:
            outputs = tuple(engine.finish())
            check_outputs(engine, outputs, begun.images)
        except BaseException as raised:  # as in run_batch
            outputs, error = None, raised
    computed_s = clock()
    started_s, assembled_s = max(begun.started_s, before_s), max(begun.assembled_s, before_s)
    times_ns = (as_ns(begun.assembled_s - begun.started_s), as_ns(computed_s - assembled_s))
    return Outcome(begun.pieces, begun.images, outputs, error, started_s, computed_s, times_ns)
