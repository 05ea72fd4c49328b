"""PyTorch, eager or compiled, on the GPU where it sees one and on the CPU elsewhere.

Images arrive as pixels in rows (NHWC) or as planes; weights are kept channels-last either way, the layout
that tensor cores and oneDNN want. The precision is the file's: an FP16 graph runs in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident

import numpy as np
import torch
from torch import Tensor, fx

from server.engines.engine import Array
from server.engines.graph_specs import read_graph_specs
from server.engines.padding import check_served_batches, default_served_batches
from server.engines.pytorch.graph import load_module
from server.engines.pytorch.memory import Slots
from server.engines.pytorch.runners import Eager, Runner, compiled
from server.engines.slots import input_check, largest_batch
from server.errors import EngineError

INDUCTOR = "inductor"

_CLOSED = "the engine is closed"


def load_pytorch_engine(
    path: Path,
    *,
    max_batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    served_batches: tuple[int, ...] = (),
) -> PyTorchEngine:
    """Load an ONNX file to be run operator by operator.

    Args:
        path: the ONNX file; external data beside it.
        max_batch: largest batch in images; None for `slots.DEFAULT_MAX_BATCH`.
        threads: CPU threads of one batch; None leaves the number to PyTorch.
        device: PyTorch's name of a device, e.g. `cuda:1`; None: `best_device(0)`.
        served_batches: the only sizes to run, ending with `max_batch`; (): any.

    Raises:
        EngineError: the file cannot be used, and why.
    """
    slots, module = _prepare(path, max_batch, device)
    if served_batches:
        check_served_batches(served_batches, slots.max_batch)
    return PyTorchEngine(slots, {0: Eager(module)}, served_batches, threads, "eager")


def load_compiled_pytorch_engine(
    path: Path,
    *,
    max_batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    served_batches: tuple[int, ...] = (),
    backend: str = INDUCTOR,
) -> PyTorchEngine:
    """Load an ONNX file and compile it for each batch size that it will run; on a GPU into CUDA graphs.

    Takes up to minutes for each size; what inductor compiled once it finds again in its own cache.

    Args:
        path: as for `load_pytorch_engine`, like what is not named here.
        max_batch: as there.
        threads: as there.
        device: as there.
        served_batches: sizes to compile for, ending with `max_batch`; (): powers of two up to it.
        backend: PyTorch's compiler.

    Raises:
        EngineError: the file cannot be used or compiled, and why.
    """
    slots, module = _prepare(path, max_batch, device)
    sizes = served_batches or default_served_batches(slots.max_batch)
    if slots.max_batch:
        check_served_batches(sizes, slots.max_batch)
    _set_threads(threads)
    try:
        runners = {size: compiled(module, slots.device_rows(size), backend) for size in sizes or (0,)}
    except Exception as error:
        reason = " ".join(
            str(error).partition("\n\n")[0].split()
        )  # what follows is advice on debugging PyTorch
        raise EngineError(f"PyTorch cannot compile {path}: {reason}; use the engine pytorch") from error
    return PyTorchEngine(slots, runners, sizes, threads, "compiled")


def best_device(index: int) -> str:
    """The GPU of this index where PyTorch sees one, else the CPU.

    Raises:
        EngineError: there are GPUs, but not this one.
    """
    if not torch.cuda.is_available():
        return "cpu"
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise EngineError(f"PyTorch sees the GPUs 0 to {count - 1}, not GPU {index}")
    return f"cuda:{index}"


@dataclass(slots=True)
class _Step:
    """What runs batches of one size.

    Args:
        images: the size; 0 for a network without a batch.
        runner: runs them.
        rows: where it reads them.
        foreign: which outputs are not by themselves and in rows, and must be copied; None: not looked at yet.
            It follows from the graph and the shapes, and to look costs as much as to hand an output over.
    """

    images: int
    runner: Runner
    rows: tuple[Tensor, ...]
    foreign: tuple[int, ...] | None = None

    def own(self, arrays: tuple[Array, ...], slots: Sequence[Array]) -> tuple[Array, ...]:
        """Return outputs in memory that the engine will not write again."""
        if self.foreign is None:
            self.foreign = tuple(i for i, array in enumerate(arrays) if not _by_itself(array, slots))
        return tuple(array.copy() if i in self.foreign else array for i, array in enumerate(arrays))


def _by_itself(array: Array, slots: Sequence[Array]) -> bool:
    return array.flags.c_contiguous and not any(np.may_share_memory(array, slot) for slot in slots)


class PyTorchEngine:
    """A module with its memory; made by the functions above. See `Engine` for the methods.

    Args:
        slots: the batch's memory and the network's specs.
        runners: what runs a batch of each size; 0: of any size.
        served_batches: the sizes, (): any.
        threads: CPU threads of one batch; None: as PyTorch likes.
        mode: `eager` or `compiled`.
    """

    simulated = False
    reads_foreign_memory = False
    any_thread = False
    padded_images = 0

    def __init__(
        self,
        slots: Slots,
        runners: Mapping[int, Runner],
        served_batches: tuple[int, ...],
        threads: int | None,
        mode: str,
    ) -> None:
        self._slots: Slots | None = slots
        self._runners = dict(runners)
        self._threads = threads
        self._thread = 0
        self._steps: dict[int, _Step] = {}
        self._known: dict[int, _Step] = {}
        self.inputs = slots.inputs
        self.outputs = slots.outputs
        self.max_batch = slots.max_batch
        self._check = input_check(slots.inputs, slots.max_batch)
        self.served_batches = served_batches
        self.platform = f"pytorch_{mode}_{slots.device.type}"

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots; pinned for a GPU."""
        return self._open().host.buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them."""
        return self._open().host.first(images)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch; what does not lie in the slots is copied there."""
        slots = self._slots
        if slots is None:
            raise EngineError(_CLOSED)
        step = self._known.get(id(inputs)) or self._prepared(slots, inputs)
        if self._thread != get_ident():
            self._settle()
        try:
            if slots.on_gpu:
                slots.upload(step.images)
            arrays = tuple(map(slots.to_host, step.runner(*step.rows)))
            return step.own(arrays, slots.host.buffers) if step.foreign is None or step.foreign else arrays
        except Exception as error:
            raise EngineError(f"PyTorch failed: {error}") from error

    def close(self) -> None:
        """Release the network and all memory."""
        slots, self._slots = self._slots, None
        self._runners.clear()
        self._steps.clear()
        self._known.clear()
        if slots is not None and slots.on_gpu:
            del slots
            torch.cuda.empty_cache()

    def _prepared(self, slots: Slots, inputs: tuple[Array, ...]) -> _Step:
        """Lay a batch into the slots, and return what runs it; what lies there is known by its identity."""
        slots.host.take(inputs, self._check)
        step = self._step(slots, len(inputs[0]) if self.max_batch else 0)
        if slots.host.own(inputs):
            self._known[id(inputs)] = step
        return step

    def _step(self, slots: Slots, images: int) -> _Step:
        """Look up once what runs batches of a size: what is read before a run on the CPU is read slowly."""
        if images in self._steps:
            return self._steps[images]
        if self.served_batches and images not in self.served_batches:
            raise EngineError(
                f"batches of {', '.join(map(str, self.served_batches))} are served, not {images}"
            )
        runner = self._runners[images if images in self._runners else 0]
        step = self._steps[images] = _Step(images, runner, slots.device_rows(images))
        return step

    def _open(self) -> Slots:
        if self._slots is None:
            raise EngineError(_CLOSED)
        return self._slots

    def _settle(self) -> None:
        """PyTorch keeps the number of threads for each calling thread."""
        self._thread = get_ident()
        _set_threads(self._threads)


def _prepare(path: Path, max_batch: int | None, device: str | None) -> tuple[Slots, fx.GraphModule]:
    specs = read_graph_specs(path)
    largest = largest_batch(specs.inputs, max_batch, batched=specs.batched)
    where = torch.device(device or best_device(0))
    module = load_module(path).to(where, memory_format=torch.channels_last)
    return Slots(specs.inputs, specs.outputs, largest, where), module


def _set_threads(threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)
