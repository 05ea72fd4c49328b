"""What goes in and comes out of an ONNX graph, read from the file alone: no framework loads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from server.engines.engine import NUMPY_DTYPES, TensorSpec
from server.errors import EngineError
from server.onnx_graph import (
    Dimension,
    datatype_of,
    graph_inputs,
    read_header,
    shape_of,
    with_implied_shapes,
)


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
    model = _read(onnx_path)
    inputs, outputs = graph_inputs(model), model.graph.output
    if not inputs or not outputs:
        raise EngineError(f"{onnx_path} has no inputs or no outputs: an ONNX file of a network is needed")
    batched = _is_batched((*inputs, *outputs))
    return GraphSpecs(
        inputs=tuple(_spec(onnx_path, value, batched) for value in inputs),
        outputs=tuple(_spec(onnx_path, value, batched) for value in outputs),
        batched=batched,
    )


def check_ranks(onnx_path: Path, names: Collection[str]) -> None:
    """See that tensors without dimensions are scalars: engines take those of unknown shape for such.

    Raises:
        EngineError: the shape of one of `names` is neither declared nor implied by the nodes.
    """
    if not names:
        return
    model = _read(onnx_path)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in names and shape_of(value) is None:
            raise EngineError(_unknown_shape(value))


def _read(path: Path) -> ModelProto:
    try:
        return with_implied_shapes(read_header(path))
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise EngineError(f"{path}: not a readable ONNX file: {error}") from error


def _unknown_shape(value: ValueInfoProto) -> str:
    return f"the graph does not say what shape {value.name!r} has: declare it, with fixed sizes but the first"


def _is_batched(values: Iterable[ValueInfoProto]) -> bool:
    """Whether the first dimension of every tensor is free."""
    shapes = [shape_of(value) or (0,) for value in values]  # of a scalar or an unknown shape nothing is free
    return all(not isinstance(shape[0], int) for shape in shapes)


def _spec(path: Path, value: ValueInfoProto, batched: bool) -> TensorSpec:
    datatype, shape = datatype_of(value), shape_of(value)
    if datatype not in NUMPY_DTYPES:
        raise EngineError(
            f"{path}: tensor {value.name!r} has type {datatype}; allowed: {', '.join(NUMPY_DTYPES)}"
        )
    if shape is None:
        raise EngineError(f"{path}: {_unknown_shape(value)}")
    sizes = shape[1 if batched else 0 :]
    return TensorSpec(value.name, datatype, tuple(_size(path, value.name, dim) for dim in sizes))


def _size(path: Path, name: str, dim: Dimension) -> int:
    if not isinstance(dim, int):
        fix = "only the first dimension of all tensors may be free: export with fixed sizes"
        raise EngineError(f"{path}: tensor {name!r} has the free dimension {dim or '?'!r}; {fix}")
    if dim < 1:
        raise EngineError(f"{path}: tensor {name!r} has a dimension of {dim}; all must be at least 1")
    return dim
