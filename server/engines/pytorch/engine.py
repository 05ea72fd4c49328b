"""PyTorch, eager or compiled, on the GPU where it sees one and on the CPU elsewhere.

Images arrive as pixels in rows (NHWC) or as planes; weights are kept channels-last either way, the layout
that tensor cores and oneDNN want. The precision is the file's: an FP16 graph runs in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from server.engines.slots import check_inputs, into_slots, largest_batch
from server.errors import EngineError

INDUCTOR = "inductor"


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
        self.inputs = slots.inputs
        self.outputs = slots.outputs
        self.max_batch = slots.max_batch
        self.served_batches = served_batches
        self.platform = f"pytorch_{mode}_{slots.device.type}"

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots; pinned for a GPU."""
        return self._open().buffers

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch; what does not lie in the slots is copied there."""
        slots = self._open()
        check_inputs(self.inputs, self.max_batch, inputs)
        images = len(inputs[0]) if self.max_batch else 0
        if self.served_batches and images not in self.served_batches:
            raise EngineError(
                f"batches of {', '.join(map(str, self.served_batches))} are served, not {images}"
            )
        into_slots(slots.buffers, inputs, batched=self.max_batch > 0)
        self._settle()
        runner = self._runners[images if images in self._runners else 0]
        try:
            outputs = runner(*slots.upload(images))
            return tuple(_to_numpy(output, slots) for output in outputs)
        except Exception as error:
            raise EngineError(f"PyTorch failed: {error}") from error

    def close(self) -> None:
        """Release the network and all memory."""
        slots, self._slots = self._slots, None
        self._runners.clear()
        if slots is not None and slots.on_gpu:
            del slots
            torch.cuda.empty_cache()

    def _open(self) -> Slots:
        if self._slots is None:
            raise EngineError("the engine is closed")
        return self._slots

    def _settle(self) -> None:
        """PyTorch keeps the number of threads for each calling thread."""
        if self._thread != get_ident():
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


def _to_numpy(output: Tensor, slots: Slots) -> Array:
    """Bring an output to the host, in memory that the engine will not write again."""
    array: Array = (output.cpu() if slots.on_gpu else output).numpy()
    foreign = not any(np.may_share_memory(array, buffer) for buffer in slots.buffers)
    return array if foreign and array.flags.c_contiguous else array.copy(order="C")
