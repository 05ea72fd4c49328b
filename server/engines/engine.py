"""The seam to whatever runs a network: shapes in, shapes out, a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

# The fixed-size datatypes that numpy knows. BF16 and BYTES have no dtype and never reach an engine.
NUMPY_DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network.

    Args:
        name: the tensor's name in the graph.
        datatype: the protocol's name, a key of `NUMPY_DTYPES`.
        shape: dimensions of one item, without the batch dimension; of the whole tensor when the engine
            has no batch dimension (`Engine.max_batch == 0`). All positive.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype, little-endian."""
        return NUMPY_DTYPES[self.datatype]

    @property
    def item_bytes(self) -> int:
        """Bytes of one item."""
        return math.prod(self.shape) * self.dtype.itemsize


class Engine(Protocol):
    """A network ready to run. One thread uses it at a time, and the same one always unless `any_thread`.

    `close` may be called once from any thread.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in graph order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in graph order."""

    @property
    def max_batch(self) -> int:
        """Largest batch in images; 0 when the network has no batch dimension (one request at a time)."""

    @property
    def served_batches(self) -> tuple[int, ...]:
        """Batch sizes that `run` takes, ascending, the last one `max_batch`; () for any up to `max_batch`.

        Where some are missing, `server.engines.padding` fills batches up to the next one.
        """

    @property
    def padded_images(self) -> int:
        """Rows computed in vain so far, to fill batches up to a served size."""

    @property
    def platform(self) -> str:
        """What runs it, for metadata, e.g. `onnxruntime_onnx` or `boulton_simulated`."""

    @property
    def simulated(self) -> bool:
        """Whether times (and then answers) are modelled rather than computed."""

    @property
    def reads_foreign_memory(self) -> bool:
        """Whether `run` may be given any C-contiguous array, so that a batch of one request needs no copy."""

    @property
    def any_thread(self) -> bool:
        """Whether `run` may be called from any thread, one at a time; False for what is bound to a thread."""

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """Preallocated inputs, one per input, each `[max(1, max_batch), *shape]`: row i is slot i.

        Without a batch dimension each buffer has the input's own shape.
        """

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first rows of `input_buffers`: what to give to `run`, which then need not look at them.

        The tuple is the same for a number of images each time, for as long as the buffers are the same.

        Args:
            images: 1 to `max_batch`; without a batch dimension it means nothing, and the buffers are meant.

        Raises:
            EngineError: there are not so many slots, or none are free.
        """

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch.

        Args:
            inputs: one array per input: what `slots` returned, the first n rows of `input_buffers`, or, where
                `reads_foreign_memory`, any C-contiguous array of shape `[n, *shape]` and the right dtype.

        Returns:
            One array per output, `[n, *shape]`, owned by the caller.

        Raises:
            EngineError: the network failed; the engine remains usable unless closed.
        """

    def close(self) -> None:
        """Release everything. Idempotent."""
