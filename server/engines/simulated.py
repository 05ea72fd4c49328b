"""An engine that computes nothing: it takes the time that a simulated GPU would take, and answers zeros."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from server.engines.engine import NUMPY_DTYPES, Array, TensorSpec
from server.engines.slots import check_inputs
from server.errors import EngineError

_DATATYPES: dict[int, str] = {
    onnx.helper.np_dtype_to_tensor_dtype(dtype): name for name, dtype in NUMPY_DTYPES.items()
}


@dataclass(frozen=True, slots=True)
class GraphSpecs:
    """What goes in and comes out of an ONNX graph; shapes lack the batch dimension where it is `batched`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool


class Executor(Protocol):
    """Whoever knows how long a batch takes."""

    def execute(self, model: str, batch: int) -> float:
        """Start a batch now: book its energy and return the seconds it takes.

        Raises KeyError for a model that is not known.
        """


class SimulatedEngine:
    """Implements `Engine` on a simulated GPU.

    Args:
        gpu: takes the modelled time and books the modelled energy.
        model_name: the network's name in the GPU's profile.
        inputs: specs of the inputs in order.
        outputs: specs of the outputs in order.
        max_batch: largest batch in images; 0 for a network without a batch dimension.
        sleep: how the modelled seconds pass.
    """

    def __init__(
        self,
        gpu: Executor,
        model_name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        max_batch: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gpu = gpu
        self._model_name = model_name
        self._inputs = inputs
        self._outputs = outputs
        self._max_batch = max_batch
        self._sleep = sleep
        self._buffers = tuple(np.zeros(self._shape(spec, max(1, max_batch)), spec.dtype) for spec in inputs)
        self._closed = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in graph order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in graph order."""
        return self._outputs

    @property
    def max_batch(self) -> int:
        """Largest batch in images; 0 when the network has no batch dimension."""
        return self._max_batch

    @property
    def served_batches(self) -> tuple[int, ...]:
        """Always (): any batch from 1 to `max_batch`."""
        return ()

    @property
    def padded_images(self) -> int:
        """Rows computed in vain: always 0."""
        return 0

    @property
    def platform(self) -> str:
        """Always `boulton_simulated`."""
        return "boulton_simulated"

    @property
    def simulated(self) -> bool:
        """Whether times and answers are modelled: always."""
        return True

    @property
    def reads_foreign_memory(self) -> bool:
        """Whether any array will do: always, as none is read."""
        return True

    @property
    def any_thread(self) -> bool:
        """Whether `run` may be called from any thread: no, it sleeps, which would hold up an event loop."""
        return False

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """Preallocated inputs, one per input: row i is slot i."""
        return self._buffers

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Let the modelled time of one batch pass and return zeros.

        Raises:
            EngineError: the engine is closed, the input is no batch for it, or the profile lacks the model.
        """
        if self._closed:
            raise EngineError(f"simulated {self._model_name}: the engine is closed")
        check_inputs(self._inputs, self._max_batch, inputs)
        batch = len(inputs[0]) if self._max_batch else 1
        try:
            seconds = self._gpu.execute(self._model_name, batch)
        except KeyError as error:
            raise EngineError(str(error.args[0])) from error
        self._sleep(seconds)
        return tuple(np.zeros(self._shape(spec, batch), spec.dtype) for spec in self._outputs)

    def close(self) -> None:
        """Refuse further batches. Idempotent."""
        self._closed = True

    def _shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        return (batch, *spec.shape) if self._max_batch else spec.shape


def read_graph_specs(onnx_path: Path) -> GraphSpecs:
    """Read from an ONNX file what an engine for it takes and answers; the weights are not looked at.

    Raises:
        EngineError: the file is not ONNX, or a tensor has a type or a dimension that cannot be served.
    """
    try:
        graph = onnx.load(str(onnx_path), load_external_data=False).graph
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise EngineError(f"{onnx_path}: not a readable ONNX file: {error}") from error
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if not inputs or not graph.output:
        raise EngineError(f"{onnx_path} has no inputs or no outputs: an ONNX file of a network is needed")
    batched = _is_batched(inputs) and _is_batched(graph.output)
    return GraphSpecs(
        inputs=tuple(_spec(onnx_path, value, batched) for value in inputs),
        outputs=tuple(_spec(onnx_path, value, batched) for value in graph.output),
        batched=batched,
    )


def _is_batched(values: Iterable[onnx.ValueInfoProto]) -> bool:
    """Whether the first dimension of every tensor is free."""
    dims = [value.type.tensor_type.shape.dim for value in values]
    return bool(dims) and all(len(dim) > 0 and dim[0].dim_value <= 0 for dim in dims)


def _spec(path: Path, value: onnx.ValueInfoProto, batched: bool) -> TensorSpec:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DATATYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise EngineError(
            f"{path}: tensor {value.name!r} has type {kind}; allowed: {', '.join(NUMPY_DTYPES)}"
        )
    dims = list(tensor.shape.dim)[1 if batched else 0 :]
    for dim in dims:
        if dim.dim_value <= 0:
            fix = "only the first dimension of all tensors may be free: export with fixed sizes"
            raise EngineError(
                f"{path}: tensor {value.name!r} has the free dimension {dim.dim_param!r}; {fix}"
            )
    return TensorSpec(value.name, _DATATYPES[tensor.elem_type], tuple(dim.dim_value for dim in dims))
