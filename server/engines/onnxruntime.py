"""ONNX Runtime on the CPU, or on a GPU through one of its execution providers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from server.engines.cuda.device import Cuda
from server.engines.engine import Array, TensorSpec
from server.engines.graph_specs import check_ranks
from server.engines.onnxruntime_bound import BoundOnnxRuntimeEngine, bind
from server.engines.onnxruntime_providers import CPU, PLACEMENT_KEY, Placement, Providers, refuse_fallback
from server.engines.padding import check_served_batches
from server.engines.slots import InputSlots, input_check, largest_batch, make_buffers
from server.errors import EngineError

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
    def get_providers(self) -> Sequence[str]: ...
    def get_provider_graph_assignment_info(self) -> Sequence[Placement]: ...
    def disable_fallback(self) -> None: ...
    def run(self, output_names: list[str], feed: dict[str, Array]) -> list[Array]: ...
    def io_binding(self) -> Any: ...  # noqa: ANN401
    def run_with_iobinding(self, binding: Any) -> None: ...  # noqa: ANN401


def load_onnxruntime_engine(
    path: Path,
    *,
    max_batch: int | None = None,
    threads: int = 0,
    providers: Providers = CPU,
    served_batches: tuple[int, ...] = (),
    cuda: Cuda | None = None,
) -> OnnxRuntimeEngine | BoundOnnxRuntimeEngine:
    """Load an ONNX file.

    The first dimension of every input and output is the batch when it is dynamic; when it is fixed
    everywhere, the engine has no batch dimension. All other dimensions must be fixed.

    Args:
        path: the ONNX file; external data beside it.
        max_batch: largest batch in images, at least 1; None for `slots.DEFAULT_MAX_BATCH`.
        threads: threads of one batch; 0 leaves the number to ONNX Runtime.
        providers: what executes the graph.
        served_batches: the only sizes to run, ending with `max_batch`; (): any.
        cuda: the GPU that `providers` names, to lay tensors out on beforehand; None: ONNX Runtime does it.

    Raises:
        EngineError: the file cannot be used, or not on what was asked for, and why.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 (automatic) or more, got {threads}")
    session = _open_session(path, threads, providers)
    try:
        inputs, batched_inputs = _specs("input", session.get_inputs())
        outputs, batched_outputs = _specs("output", session.get_outputs())
        check_ranks(path, _without_dimensions([*session.get_inputs(), *session.get_outputs()]))
        batched = _batched(batched_inputs | batched_outputs)
        largest = largest_batch(inputs, max_batch, batched=batched)
        if served_batches:
            check_served_batches(served_batches, largest)
        if cuda is not None:
            specs = inputs, outputs
            return bind(session, cuda, providers, specs, largest, served_batches, device=providers.device)
        return OnnxRuntimeEngine(session, inputs, outputs, largest, providers, served_batches)
    except (EngineError, UnicodeDecodeError) as error:  # a damaged name is no text
        raise EngineError(f"{path} cannot be served: {error}") from error


class OnnxRuntimeEngine:
    """A session with its specs; made by `load_onnxruntime_engine`. See `Engine` for the methods."""

    simulated = False
    reads_foreign_memory = True
    padded_images = 0

    def __init__(
        self,
        session: _Session,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        max_batch: int,
        providers: Providers = CPU,
        served_batches: tuple[int, ...] = (),
    ) -> None:
        self._session: _Session | None = session
        self._input_names = [spec.name for spec in inputs]
        self._output_names = [spec.name for spec in outputs]
        self._slots: InputSlots | None = None
        self._feeds: dict[int, dict[str, Array]] = {}
        self.inputs = inputs
        self.outputs = outputs
        self.max_batch = max_batch
        self._check = input_check(inputs, max_batch)
        self.served_batches = served_batches
        self.platform = providers.platform
        self.any_thread = providers.any_thread

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """The slots; reserved on first use, and backed by memory only as far as rows are written."""
        return self._reserved().buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them."""
        return (self._slots or self._reserved()).first(images)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run one batch; the inputs are read where they are."""
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        feed = self._feeds.get(id(inputs)) or self._feed(inputs)
        try:
            return tuple(session.run(self._output_names, feed))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error

    def close(self) -> None:
        """Release the session and the buffers."""
        self._session = None
        self._feeds.clear()
        self._slots = None

    def _reserved(self) -> InputSlots:
        if self._slots is None:
            self._slots = InputSlots(make_buffers(self.inputs, self.max_batch), self.max_batch)
        return self._slots

    def _feed(self, inputs: tuple[Array, ...]) -> dict[str, Array]:
        """Return what the session is given; for the engine's own slots the same each time."""
        if self._slots is not None and self._slots.own(inputs):
            feed = self._feeds[id(inputs)] = dict(zip(self._input_names, inputs, strict=True))
            return feed
        return dict(zip(self._input_names, self._checked(inputs), strict=True))

    def _checked(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        self._check(inputs)
        for array in inputs:
            if not array.flags.aligned:
                return tuple(map(self._aligned, self.input_buffers, inputs))
        return inputs

    def _aligned(self, buffer: Array, array: Array) -> Array:
        """Copy what lies at an odd address (as in a message): compiled loops may fault there, even on x86."""
        if array.flags.aligned:
            return array
        slot = buffer[: len(array)] if self.max_batch else buffer
        np.copyto(slot, array)
        return slot


def _open_session(path: Path, threads: int, providers: Providers) -> _Session:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime is not installed ({error}): {providers.install}") from error
    if not path.is_file():
        raise EngineError(f"{path} is not a file: an ONNX file is needed")
    if not path.stat().st_size:
        raise EngineError(f"{path} is empty: an ONNX file is needed; export the model again")
    providers.check_offered(onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # What is wrong is raised as well, but for what a GPU's libraries lack: only the log says that.
    options.log_severity_level = 3 if providers.on_gpu else 4
    # Spinning threads take the cores that the event loop needs, and burn power between batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if providers.on_gpu:
        options.add_session_config_entry(PLACEMENT_KEY, "1")
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages, where these are installed
        _load_first(providers)
    try:
        session: _Session = onnxruntime.InferenceSession(path, options, providers=list(providers.chain))
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot load {path}: {error}; export the model again") from error
    if providers.on_gpu:
        _hold_to(providers, session, path)
    return session


def _load_first(providers: Providers) -> None:
    """What is missing or broken shows in the session, which then is refused."""
    if providers.loads_first:
        with suppress(Exception):  # a library that does not fit raises what it likes
            import_module(providers.loads_first)


def _hold_to(providers: Providers, session: _Session, path: Path) -> None:
    """Refuse a session that is not where it was asked for, and see that it never leaves from there."""
    session.disable_fallback()
    refuse_fallback(path, providers, session.get_providers(), session.get_provider_graph_assignment_info())


def _specs(role: str, tensors: Sequence[_Tensor]) -> tuple[tuple[TensorSpec, ...], set[bool]]:
    """Return the specs of the tensors, and which kinds of first dimension (dynamic or not) occur."""
    if not tensors:
        raise EngineError(f"the graph has no {role}s")
    batched = {bool(tensor.shape) and not isinstance(tensor.shape[0], int) for tensor in tensors}
    return tuple(_spec(role, tensor) for tensor in tensors), batched


def _without_dimensions(tensors: Sequence[_Tensor]) -> set[str]:
    """ONNX Runtime says the same of a scalar and of what it does not know the shape of."""
    return {tensor.name for tensor in tensors if not tensor.shape}


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
