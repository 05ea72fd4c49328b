"""ONNX Runtime on a GPU with everything in place beforehand: page-locked slots, buffers on the GPU, bindings.

Left to itself, `run` uploads from memory that the GPU cannot reach directly, which the driver copies once
more, and reserves its outputs anew for every batch. Here slots and buffers are those of the TensorRT engine,
and tensors in clients' memory on the GPU are copied there on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from server.engines.cuda.device import Cuda, Stream, on_gpu
from server.engines.cuda.lane import Lane, make_lane
from server.engines.device_rows import NOTHING, Exchange
from server.engines.engine import Array, TensorSpec
from server.engines.onnxruntime_providers import Providers
from server.engines.slots import input_check
from server.errors import EngineError


class BindableSession(Protocol):
    """What a session of ONNX Runtime does with bindings."""

    def io_binding(self) -> Any:  # noqa: ANN401  # onnxruntime ships no types
        """Return a binding without tensors."""

    def run_with_iobinding(self, binding: Any) -> None:  # noqa: ANN401
        """Run; the outputs are complete when it returns."""


class BoundOnnxRuntimeEngine:
    """Implements `Engine` and `Exchanging`; made by `bind`.

    Args:
        session: runs the network where the bindings say.
        cuda: the GPU.
        lane: where a batch lies, on the host and on the GPU.
        stream: for copies.
        exits: frees the lane.
        providers: what executes the graph.
        specs: inputs and outputs in graph order.
        max_batch: largest batch in images; 0 without a batch dimension.
        served_batches: the only sizes to run; (): any.
        device: the kind and the number of the device, as ONNX Runtime names it.
    """

    simulated = False
    reads_foreign_memory = False
    exchanges = True
    padded_images = 0

    def __init__(
        self,
        session: BindableSession,
        cuda: Cuda,
        lane: Lane,
        stream: Stream,
        exits: ExitStack,
        providers: Providers,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        max_batch: int,
        served_batches: tuple[int, ...],
        device: tuple[str, int],
    ) -> None:
        self._session: BindableSession | None = session
        self._cuda = cuda
        self._lane: Lane | None = lane
        self._stream = stream
        self._exits = exits
        self._device = device
        self._bindings: dict[int | None, Any] = {}
        self.inputs, self.outputs = specs
        self.max_batch = max_batch
        self._check = input_check(self.inputs, max_batch)
        self.served_batches = served_batches
        self.platform = providers.platform
        self.any_thread = providers.any_thread

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots, page-locked."""
        return self._open().slots.buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them."""
        return self._open().slots.first(images)

    def run(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> tuple[Array, ...]:
        """Run one batch; rows that are not in the slots are copied there.

        Raises:
            EngineError: the inputs do not fit, or it failed.
            CudaLost: the process must be restarted.
        """
        lane = self._open()
        lane.slots.take(inputs, self._check)
        rows = len(inputs[0]) if self.max_batch else None
        with on_gpu(self._cuda):
            lane.upload(self._cuda, rows, self._stream, exchange.sources)
            self._stream.synchronize()  # ONNX Runtime works on a stream of its own
            self._execute(lane, rows)
            lane.download(self._cuda, rows, self._stream, exchange.targets)
            lane.done.synchronize()
        return lane.outputs(rows)

    def close(self) -> None:
        """Release the session and the buffers. Idempotent."""
        if self._lane is None:
            return
        self._lane = None
        self._bindings.clear()
        self._session = None
        with suppress(*self._cuda.errors), self._cuda.bound():
            if self._cuda.alive():
                self._exits.close()

    def _open(self) -> Lane:
        if self._lane is None:
            raise EngineError("the engine is closed")
        return self._lane

    def _execute(self, lane: Lane, rows: int | None) -> None:
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        try:
            if rows not in self._bindings:
                self._bindings[rows] = self._bound(session, lane, rows)
            session.run_with_iobinding(self._bindings[rows])
        except Exception as error:  # it raises what it likes
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def _bound(self, session: BindableSession, lane: Lane, rows: int | None) -> Any:  # noqa: ANN401
        binding = session.io_binding()
        for bind, specs in ((binding.bind_input, self.inputs), (binding.bind_output, self.outputs)):
            for spec in specs:
                shape = spec.shape if rows is None else (rows, *spec.shape)
                bind(spec.name, *self._device, spec.dtype, shape, lane.addresses[spec.name])
        return binding


def bind(
    session: BindableSession,
    cuda: Cuda,
    providers: Providers,
    specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    max_batch: int,
    served_batches: tuple[int, ...] = (),
    *,
    device: tuple[str, int] = ("cuda", 0),
) -> BoundOnnxRuntimeEngine:
    """Reserve memory for the largest batch, and return an engine that runs a session on it.

    Raises:
        EngineError: there is too little memory.
        CudaLost: the process must be restarted.
    """
    inputs, outputs = map(tuple, specs)
    exits = ExitStack()
    with on_gpu(cuda):
        try:
            lane = make_lane(cuda, inputs, outputs, max_batch, exits)
            stream = cuda.stream()
        except BaseException:
            exits.close()
            raise
    return BoundOnnxRuntimeEngine(
        session, cuda, lane, stream, exits, providers, (inputs, outputs), max_batch, served_batches, device
    )
