"""Requests into a batch and a batch back into answers: the only place where image memory is copied."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from optimizer.batching import Request, Slice
from server.engines.device_rows import NOTHING, DeviceRows, Exchange, Placed
from server.engines.engine import Array, Engine
from server.engines.rows import Rows
from server.errors import EngineError, RequestError, without_origin
from server.wire.outside_memory import LARGE_COPY_BYTES as _LARGE_COPY_BYTES
from server.wire.outside_memory import OutsideRows, Tensor, in_own_memory

Targets = tuple[DeviceRows | None, ...]


class Timing(NamedTuple):
    """Where a request's time went. A request in several batches has the sum of its batches' times."""

    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int


class Answer(NamedTuple):
    """The rows of one request, `[images, *shape]` per output, in order."""

    outputs: tuple[Array, ...]
    timing: Timing


class Call:
    """A request on its way through the scheduler. `inputs` is borrowed memory, held until nothing reads it.

    So are `targets`: where on the GPU each output belongs; None: the answer brings it; (): all.

    `unreadable` says why its rows could not be read when a batch was assembled, from memory of somebody else:
    what was computed for it means nothing. The engine thread writes it before the batch's outcome.

    `settled` turns true once, when the request is answered, failed or withdrawn. The event loop writes it;
    the engine thread reads it to leave out rows that nobody waits for any more: a stale read only costs work.
    """

    __slots__ = (
        *("answer", "compute_ns", "input_ns", "inputs", "missing"),
        *("on_device", "parts", "queue_ns", "settled", "targets", "unreadable"),
    )

    def __init__(
        self,
        inputs: tuple[Tensor, ...],
        images: int,
        answer: asyncio.Future[Answer],
        targets: Targets = (),
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.on_device = tuple([one for one in (*inputs, *targets) if isinstance(one, DeviceRows)])
        self.answer = answer
        self.missing = images
        self.parts: list[tuple[Array, ...]] = []
        self.settled = False
        self.unreadable: RequestError | None = None
        self.queue_ns = -1
        self.input_ns = 0
        self.compute_ns = 0

    def hold(self) -> None:
        """Keep memory on the GPU mapped: once until it is answered, and once for every batch it rides in."""
        for tensor in self.on_device:
            tensor.memory.hold()

    def release(self) -> None:
        """Let go of it, once for every `hold`."""
        for tensor in self.on_device:
            tensor.memory.release()

    def accept(
        self, outputs: tuple[Array, ...], images: int, queue_ns: int, times_ns: tuple[int, int]
    ) -> bool:
        """Take the outputs of the next rows and their batch's (input, infer) times. True when complete."""
        self.parts.append(outputs)
        self.missing -= images
        if self.queue_ns < 0:
            self.queue_ns = queue_ns
        self.input_ns += times_ns[0]
        self.compute_ns += times_ns[1]
        return self.missing == 0

    def complete(self, output_ns: int) -> Answer:
        """Return the outputs of all rows; copied only when they came from several batches."""
        outputs = self.parts[0]
        if len(self.parts) > 1:
            outputs = tuple(np.concatenate(parts) for parts in zip(*self.parts, strict=True))
        return Answer(outputs, Timing(self.queue_ns, self.input_ns, self.compute_ns, output_ns))


Piece = Slice[Call]
CallRequest = Request[Call]


def still_wanted(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Leave out the rows of requests that are settled already (cancelled, expired, failed elsewhere)."""
    return tuple(piece for piece in pieces if not piece.request.payload.settled)


def halves(pieces: tuple[Piece, ...]) -> tuple[tuple[Piece, ...], ...]:
    """Part a batch between its requests; () where there is one, or one that is split over several batches.

    The rows of such a one must be answered in their order, which running some of them later would change.
    """
    if len(pieces) < 2 or any(piece.images != piece.request.images for piece in pieces):
        return ()
    middle = len(pieces) // 2
    return pieces[:middle], pieces[middle:]


def assemble(engine: Engine, pieces: Sequence[Piece]) -> tuple[Array, ...]:
    """Return the engine's inputs for `pieces`, in order.

    One piece alone is passed on as it is when the engine reads foreign memory; otherwise rows are copied into
    the engine's own buffers, once. So is what lies at an odd address in its message: compiled code may fault
    on that, whatever the processor allows.
    """
    if len(pieces) == 1 and engine.reads_foreign_memory:
        rows = _rows(engine, pieces[0])
        if in_own_memory(rows) and all(array.flags.aligned for array in rows):
            return rows
    buffers = engine.input_buffers
    if not engine.max_batch:
        _fill(buffers, engine, pieces[0])
        return buffers
    end = 0
    for piece in pieces:
        start, end = end, end + piece.images
        _fill(tuple(buffer[start:end] for buffer in buffers), engine, piece)
    return engine.slots(end)


def exchange_of(engine: Engine, pieces: Sequence[Piece]) -> Exchange:
    """Return which rows of the batch that `assemble` makes lie, or belong, in clients' memory on the GPU."""
    if not any(piece.request.payload.on_device for piece in pieces):
        return NOTHING
    sources: list[Placed] = []
    targets: list[Placed] = []
    end = 0
    for piece in pieces:
        start, end = end, end + piece.images
        sources += _placed(_rows(engine, piece), start)
        targets += _placed(_targets(engine, piece), start)
    return Exchange(sources, targets)


def _placed(tensors: Sequence[Tensor | None], start: int) -> list[Placed]:
    return [Placed(i, start, one) for i, one in enumerate(tensors) if isinstance(one, DeviceRows)]


def split(outputs: tuple[Array, ...], pieces: Sequence[Piece]) -> Iterator[tuple[Array, ...]]:
    """Yield each piece's rows of a batch's outputs, as views."""
    if len(pieces) == 1:
        yield outputs
        return
    end = 0
    for piece in pieces:
        start, end = end, end + piece.images
        yield tuple([output[start:end] for output in outputs])


def check_outputs(engine: Engine, outputs: tuple[Array, ...], images: int) -> None:
    """Raise EngineError unless there is one array per output, of its dtype and shape, a row per image."""
    specs = engine.outputs
    if len(outputs) != len(specs):
        raise EngineError(f"the model returned {len(outputs)} outputs instead of {len(specs)}")
    rows = (images,) if engine.max_batch else ()
    for spec, output in zip(specs, outputs, strict=True):
        if output.shape != rows + spec.shape or output.dtype != spec.dtype:
            expected = f"{spec.dtype} of shape {[*rows, *spec.shape]}"
            returned = f"{output.dtype} of shape {list(output.shape)}"
            raise EngineError(f"the model returned output '{spec.name}' as {returned} instead of {expected}")


def _rows(engine: Engine, piece: Piece) -> tuple[Tensor, ...]:
    inputs = piece.request.payload.inputs
    if _is_whole(engine, piece):
        return inputs
    return tuple(_some(tensor, piece.start, piece.images) for tensor in inputs)


def _targets(engine: Engine, piece: Piece) -> Targets:
    targets = piece.request.payload.targets
    if _is_whole(engine, piece):
        return targets
    return tuple(target and target.rows(piece.start, piece.images) for target in targets)


def _is_whole(engine: Engine, piece: Piece) -> bool:
    return not engine.max_batch or piece.images == piece.request.images


def _some(tensor: Tensor, start: int, count: int) -> Tensor:
    if isinstance(tensor, Rows):
        return tensor.rows(start, count)
    return tensor[start : start + count]


def _fill(slots: tuple[Array, ...], engine: Engine, piece: Piece) -> None:
    """Copy a piece's rows. What cannot be read fails its own request, and its slots stay as they are."""
    try:
        _copy(slots, _rows(engine, piece))
    except RequestError as error:
        piece.request.payload.unreadable = without_origin(error)


def _copy(targets: tuple[Array, ...], sources: tuple[Tensor, ...]) -> None:
    for target, source in zip(targets, sources, strict=True):
        if source.shape != target.shape or source.dtype != target.dtype:
            given = f"{source.dtype} of shape {list(source.shape)}"
            raise EngineError(f"rows must be {target.dtype} of shape {list(target.shape)}, got {given}")
        if isinstance(source, DeviceRows):
            continue  # the engine copies it, on the GPU
        if isinstance(source, OutsideRows):
            source.copy_into(target)
        elif source.nbytes > _LARGE_COPY_BYTES:
            np.copyto(target, source)
        else:
            _as_bytes(target)[:] = _as_bytes(source)


def _as_bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
