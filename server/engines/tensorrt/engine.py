"""A plan at work: upload, compute and download of one batch, and of the next one meanwhile.

The upload has a stream of its own. While a batch is computed, the next one is copied into the other lane's
page-locked slots and on to the GPU; an event keeps the order:

    upload stream    | upload A | upload B |
    compute stream              | run A      | down A | run B     | down B |
    this thread      copy A, queue | copy B, queue | wait A  | ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from server.engines.cuda.device import Cuda, Stream, on_gpu
from server.engines.cuda.lane import Lane
from server.engines.device_rows import NOTHING, Exchange
from server.engines.engine import Array, TensorSpec
from server.engines.slots import input_check
from server.engines.tensorrt.profile_run import ProfileRun
from server.engines.tensorrt.profiles import profile_index
from server.errors import EngineError


@dataclass(frozen=True, slots=True)
class Network:
    """What an engine takes and answers; `batches` is () for a network without a batch dimension."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: tuple[int, ...]

    @property
    def max_batch(self) -> int:
        """Largest batch in images; 0 without a batch dimension."""
        return max(self.batches, default=0)


class TensorRtEngine:
    """Implements `Engine`; made by `load_tensorrt_engine`.

    Args:
        cuda: the GPU.
        network: what it takes and answers.
        lanes: buffers; as many batches may be under way at once.
        runs: one for each size of `network.batches`, or the only one.
        streams: for uploads, and for everything else (that of `runs`).
        exits: frees all of it.
    """

    platform = "tensorrt_plan"
    simulated = False
    reads_foreign_memory = False
    any_thread = False
    overlaps = True
    exchanges = True
    padded_images = 0

    def __init__(
        self,
        cuda: Cuda,
        network: Network,
        lanes: Sequence[Lane],
        runs: Sequence[ProfileRun],
        streams: tuple[Stream, Stream],
        exits: ExitStack,
    ) -> None:
        self._cuda = cuda
        self._network = network
        self._runs = tuple(runs)
        self._free = deque(lanes)
        self._begun: deque[tuple[Lane, int | None]] = deque()
        self._uploads, self._compute = streams
        self._exits = exits
        self._closed = False
        self.inputs = network.inputs
        self.outputs = network.outputs
        self.max_batch = network.max_batch
        self._check = input_check(network.inputs, network.max_batch)
        self.served_batches = network.batches

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots of the next batch, page-locked. They change while a batch is under way."""
        return self._next().slots.buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them."""
        return self._next().slots.first(images)

    def run(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> tuple[Array, ...]:
        """Run one batch of a served size, alone."""
        if self._begun:
            raise EngineError("a batch is under way: finish it first")
        self.begin(inputs, exchange)
        return self.finish()

    def begin(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> None:
        """Queue one batch of a served size and return at once; its answers come from `finish`, in order.

        Args:
            inputs: the first rows of `input_buffers` as they are now; rows from elsewhere are copied there.
            exchange: rows that lie, or belong, in other memory on the GPU, which must stay until `finish`.

        Raises:
            EngineError: the inputs do not fit, or the GPU failed; nothing is under way for them.
            CudaLost: the process must be restarted.
        """
        lane = self._next()
        lane.slots.take(inputs, self._check)
        run, rows = self._run_for(inputs)
        with on_gpu(self._cuda):
            lane.upload(self._cuda, rows, self._uploads, exchange.sources)
            self._compute.wait_for(lane.uploaded)
            run.enqueue(lane.addresses)
            lane.download(self._cuda, rows, self._compute, exchange.targets)
        self._begun.append((self._free.popleft(), rows))

    def finish(self) -> tuple[Array, ...]:
        """Wait for the batch that was begun first and return its answers.

        Raises:
            EngineError: none was begun, or it failed.
            CudaLost: the process must be restarted.
        """
        if not self._begun:
            raise EngineError("no batch is under way")
        lane, rows = self._begun.popleft()
        # The lane that was used last is used next while it is free: its memory is in the caches.
        self._free.appendleft(lane)
        with on_gpu(self._cuda):
            lane.done.synchronize()
        return lane.outputs(rows)

    def prepare(self) -> None:
        """Run every size in every lane once, so that no request waits for a first time."""
        with on_gpu(self._cuda):
            for lane in self._free:
                for run in self._runs:
                    run.enqueue(lane.addresses)
            self._compute.synchronize()

    def close(self) -> None:
        """Wait for what is under way and give everything back."""
        if self._closed:
            return
        self._closed = True
        self._begun.clear()
        self._free.clear()
        release(self._cuda, self._exits)

    def _next(self) -> Lane:
        if self._closed:
            raise EngineError("the engine is closed")
        if not self._free:
            raise EngineError("all buffers are in use: finish a batch first")
        return self._free[0]

    def _run_for(self, inputs: tuple[Array, ...]) -> tuple[ProfileRun, int | None]:
        if not self.max_batch:
            return self._runs[0], None
        rows = len(inputs[0])
        return self._runs[profile_index(self.served_batches, rows)], rows


def release(cuda: Cuda, exits: ExitStack) -> None:
    """Give back what lies on an idle GPU; after `CudaLost` it goes with the process."""
    with suppress(*cuda.errors), cuda.bound():
        if cuda.alive():
            exits.close()
