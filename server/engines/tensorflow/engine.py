"""TensorFlow, for comparison: on the GPU where it sees one and on the CPU elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from server.engines.engine import Array
from server.engines.graph_specs import GraphSpecs, read_graph_specs
from server.engines.padding import check_served_batches
from server.engines.slots import InputSlots, input_check, largest_batch, make_buffers
from server.engines.tensorflow.graph import load_function
from server.errors import EngineError


def load_tensorflow_engine(
    path: Path,
    *,
    max_batch: int | None = None,
    threads: int | None = None,
    device_index: int = 0,
    served_batches: tuple[int, ...] = (),
) -> TensorFlowEngine:
    """Load an ONNX file.

    Args:
        path: the ONNX file; external data beside it.
        max_batch: largest batch in images; None for `slots.DEFAULT_MAX_BATCH`.
        threads: CPU threads of one batch; None leaves the number to TensorFlow. The first engine of a process
            settles it.
        device_index: which GPU, where there is one.
        served_batches: the only sizes to run, ending with `max_batch`; (): any.

    Raises:
        EngineError: the file cannot be used, and why.
    """
    specs = read_graph_specs(path)
    largest = largest_batch(specs.inputs, max_batch, batched=specs.batched)
    if served_batches:
        check_served_batches(served_batches, largest)
    _set_threads(threads)
    device = _device(device_index)
    with tf.device(device):
        function = load_function(path, specs.inputs, batched=specs.batched)
    return TensorFlowEngine(function, specs, largest, device, served_batches)


class TensorFlowEngine:
    """A traced function; made by `load_tensorflow_engine`. See `Engine` for the methods."""

    simulated = False
    reads_foreign_memory = True
    any_thread = False
    padded_images = 0

    def __init__(
        self,
        function: Callable[..., Any],
        specs: GraphSpecs,
        max_batch: int,
        device: str,
        served_batches: tuple[int, ...],
    ) -> None:
        self._function: Callable[..., Any] | None = function
        self._device = device
        self._slots: InputSlots | None = None
        self.inputs = specs.inputs
        self.outputs = specs.outputs
        self.max_batch = max_batch
        self._check = input_check(specs.inputs, max_batch)
        self.served_batches = served_batches
        self.platform = f"tensorflow_{device[1:4].lower()}"

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots; reserved on first use."""
        return self._reserved().buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them."""
        return self._reserved().first(images)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch."""
        if self._function is None:
            raise EngineError("the engine is closed")
        self._check(inputs)
        try:
            with tf.device(self._device):
                outputs = self._function(*map(tf.convert_to_tensor, inputs))
            return tuple(
                np.array(output.numpy()) for output in outputs
            )  # TensorFlow's may be the input itself
        except Exception as error:
            raise EngineError(f"TensorFlow failed: {error}") from error

    def close(self) -> None:
        """Release the function with its weights, and the buffers. TensorFlow keeps its threads."""
        self._function = None
        self._slots = None

    def _reserved(self) -> InputSlots:
        if self._slots is None:
            self._slots = InputSlots(make_buffers(self.inputs, self.max_batch), self.max_batch)
        return self._slots


def _device(index: int) -> str:
    """The GPU of this index where TensorFlow sees any, else the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "/CPU:0"
    if not 0 <= index < len(gpus):
        raise EngineError(f"TensorFlow sees the GPUs 0 to {len(gpus) - 1}, not GPU {index}")
    return f"/GPU:{index}"


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise EngineError(
            f"TensorFlow has settled on another number of threads than {threads} in this process; "
            "give all its engines the same"
        ) from error
