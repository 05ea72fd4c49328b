"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from server.engines.engine import Array, TensorSpec
from server.errors import EngineError

DEFAULT_MAX_BATCH = 64
"""Largest batch when the graph leaves it open and nobody configured it (less for very large inputs)."""

BUFFER_BYTES_MAX = 2 << 30
"""Bound on the input buffers of one engine."""

_FIX = "only the batch (dimension 0) may be dynamic: export the model with fixed sizes"

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}


class _Tensor(Protocol):
    """What ONNX Runtime says about an input or output; a dynamic dimension is its symbol or None."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    def get_inputs(self) -> Sequence[_Tensor]: ...
    def get_outputs(self) -> Sequence[_Tensor]: ...
    def run(self, output_names: list[str], feed: dict[str, Array]) -> list[Array]: ...


def load_onnxruntime_engine(
    path: Path, *, max_batch: int | None = None, threads: int = 0
) -> OnnxRuntimeEngine:
    """Load an ONNX file.

    The first dimension of every input and output is the batch when it is dynamic; when it is fixed
    everywhere, the engine has no batch dimension. All other dimensions must be fixed.

    Args:
        path: the ONNX file; external data beside it.
        max_batch: largest batch in images, at least 1; None for `DEFAULT_MAX_BATCH`.
        threads: threads of one batch; 0 leaves the number to ONNX Runtime.

    Raises:
        EngineError: the file cannot be used, and why.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 (automatic) or more, got {threads}")
    session = _open_session(path, threads)
    try:
        inputs, batched_inputs = _specs("input", session.get_inputs())
        outputs, batched_outputs = _specs("output", session.get_outputs())
        batched = _batched(batched_inputs | batched_outputs)
        return OnnxRuntimeEngine(session, inputs, outputs, _max_batch(inputs, max_batch, batched=batched))
    except (EngineError, UnicodeDecodeError) as error:  # a damaged name is no text
        raise EngineError(f"{path} cannot be served: {error}") from error


class OnnxRuntimeEngine:
    """A session with its specs; made by `load_onnxruntime_engine`. See `Engine` for the methods."""

    platform = "onnxruntime_onnx"
    simulated = False
    reads_foreign_memory = True
    any_thread = True
    served_batches: tuple[int, ...] = ()
    padded_images = 0

    def __init__(
        self,
        session: _Session,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        max_batch: int,
    ) -> None:
        self._session: _Session | None = session
        self._output_names = [spec.name for spec in outputs]
        self._buffers: tuple[Array, ...] | None = None
        self.inputs = inputs
        self.outputs = outputs
        self.max_batch = max_batch

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots; reserved on first use, and backed by memory only as far as rows are written."""
        if self._buffers is None:
            rows = (self.max_batch,) if self.max_batch else ()
            self._buffers = tuple(np.empty(rows + spec.shape, spec.dtype) for spec in self.inputs)
        return self._buffers

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch; the inputs are read where they are."""
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        self._check(inputs)
        feed = {spec.name: self._aligned(i, inputs[i]) for i, spec in enumerate(self.inputs)}
        try:
            return tuple(session.run(self._output_names, feed))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def close(self) -> None:
        """Release the session and the buffers."""
        self._session = None
        self._buffers = None

    def _check(self, inputs: tuple[Array, ...]) -> None:
        if len(inputs) != len(self.inputs):
            raise EngineError(f"the model has {len(self.inputs)} inputs, got {len(inputs)}")
        images = inputs[0].shape[:1]
        for spec, array in zip(self.inputs, inputs, strict=True):
            rows = images if self.max_batch else ()
            if array.dtype != spec.dtype or array.shape != rows + spec.shape or not array.flags.c_contiguous:
                raise EngineError(self._mismatch(spec, array))
        if self.max_batch and not 1 <= images[0] <= self.max_batch:
            raise EngineError(f"a batch holds 1 to {self.max_batch} images, got {images[0]}")

    def _mismatch(self, spec: TensorSpec, array: Array) -> str:
        rows = ["batch"] if self.max_batch else []
        expected = f"a contiguous {spec.dtype} array of shape {[*rows, *spec.shape]}"
        return f"input '{spec.name}' takes {expected}, got {array.dtype} of shape {list(array.shape)}"

    def _aligned(self, index: int, array: Array) -> Array:
        """Copy what lies at an odd address (as in a message): compiled loops may fault there, even on x86."""
        if array.flags.aligned:
            return array
        buffer = self.input_buffers[index]
        slot = buffer[: len(array)] if self.max_batch else buffer
        np.copyto(slot, array)
        return slot


def _open_session(path: Path, threads: int) -> _Session:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime is not installed ({error}): pip install 'boulton[cpu]'") from error
    if not path.is_file():
        raise EngineError(f"{path} is not a file: an ONNX file is needed")
    if not path.stat().st_size:
        raise EngineError(f"{path} is empty: an ONNX file is needed; export the model again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Spinning threads take the cores that the event loop needs, and burn power between batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session: _Session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot load {path}: {error}; export the model again") from error


def _specs(role: str, tensors: Sequence[_Tensor]) -> tuple[tuple[TensorSpec, ...], set[bool]]:
    """Return the specs of the tensors, and which kinds of first dimension (dynamic or not) occur."""
    if not tensors:
        raise EngineError(f"the graph has no {role}s")
    batched = {bool(tensor.shape) and not isinstance(tensor.shape[0], int) for tensor in tensors}
    return tuple(_spec(role, tensor) for tensor in tensors), batched


def _spec(role: str, tensor: _Tensor) -> TensorSpec:
    datatype = _DATATYPES.get(tensor.type)
    if datatype is None:
        allowed = ", ".join(_DATATYPES)
        raise EngineError(f"{role} '{tensor.name}' is of type {tensor.type}; allowed are {allowed}")
    sizes = [dim for dim in tensor.shape if isinstance(dim, int)]
    dynamic = [(index, dim) for index, dim in enumerate(tensor.shape) if not isinstance(dim, int)]
    for index, dim in dynamic:
        if index > 0:
            raise EngineError(f"{role} '{tensor.name}' has a dynamic dimension {index} ({dim!r}); {_FIX}")
    if any(size < 1 for size in sizes):
        raise EngineError(f"{role} '{tensor.name}' has shape {tensor.shape}; all sizes must be at least 1")
    return TensorSpec(tensor.name, datatype, tuple(sizes))


def _batched(kinds: set[bool]) -> bool:
    if len(kinds) == 2:
        raise EngineError(
            "the first dimension is dynamic for some inputs or outputs and fixed for others; " + _FIX
        )
    return kinds == {True}


def _max_batch(inputs: tuple[TensorSpec, ...], wanted: int | None, *, batched: bool) -> int:
    image_bytes = sum(spec.item_bytes for spec in inputs)
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
