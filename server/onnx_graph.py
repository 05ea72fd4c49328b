"""Reading an ONNX graph: names, datatypes and shapes of what goes in and comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

# A dimension is a number, a symbol, or unknown.
Dimension: TypeAlias = int | str | None
Shape: TypeAlias = tuple[Dimension, ...]

_DATATYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.STRING: "BYTES",
}


def read_header(path: Path) -> ModelProto:
    """Read a model without its external data. Raises whatever reading or parsing raises."""
    return onnx.load(path, load_external_data=False)


def graph_inputs(model: ModelProto) -> tuple[ValueInfoProto, ...]:
    """Return what a caller must feed: older files also list their weights as inputs, which are left out."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(value for value in model.graph.input if value.name not in weights)


def shape_of(value: ValueInfoProto) -> Shape | None:
    """Return the declared shape; None when the graph declares none."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )


def datatype_of(value: ValueInfoProto) -> str:
    """Return the protocol's name of the element type, e.g. FP32; `unsupported` where it has none."""
    return _DATATYPES.get(value.type.tensor_type.elem_type, "unsupported")


def describe(value: ValueInfoProto) -> str:
    """Return e.g. `input FP32 [batch, 3, 224, 224]` for messages."""
    shape = shape_of(value)
    dims = ["?" if dim is None else str(dim) for dim in shape or ()]
    shown = "of unknown shape" if shape is None else f"[{', '.join(dims)}]"
    return f"{value.name} {datatype_of(value)} {shown}"
