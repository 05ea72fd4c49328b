"""What goes in and comes out of an ONNX graph, read from the file alone: no framework loads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from server.engines.engine import NUMPY_DTYPES, TensorSpec
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
