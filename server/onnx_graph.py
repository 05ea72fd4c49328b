"""Reading an ONNX graph: names, datatypes and shapes of what goes in and comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import onnx
from onnx import ModelProto, TensorProto, TensorShapeProto, ValueInfoProto

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
    return tuple(map(_dimension, value.type.tensor_type.shape.dim))


def _dimension(dim: TensorShapeProto.Dimension) -> Dimension:
    """Some converters write -1 for what they do not know; engines take it so."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def datatype_of(value: ValueInfoProto) -> str:
    """Return the protocol's name of the element type, e.g. FP32.

    What is never served has ONNX's name: STRING and the like, or `sequence` where it is no tensor.
    """
    kind = str(value.type.WhichOneof("value") or "tensor_type")
    if kind != "tensor_type":
        return kind.removesuffix("_type")
    element = value.type.tensor_type.elem_type
    return _DATATYPES.get(element) or _element_name(element)


def _element_name(element: int) -> str:
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(element) if element in known else f"number {element}"


def with_implied_shapes(model: ModelProto) -> ModelProto:
    """Return a model whose outputs declare the shapes that follow from its nodes.

    Where all are declared it is the model itself; what cannot be inferred stays open.
    """
    if all(map(_is_declared, model.graph.output)):
        return model
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001, RUF100 - whoever runs the graph says what is wrong with it
        return model


def _is_declared(value: ValueInfoProto) -> bool:
    shape = shape_of(value)
    return shape is not None and all(isinstance(dim, int) for dim in shape[1:])


def describe(value: ValueInfoProto) -> str:
    """Return e.g. `input FP32 [batch, 3, 224, 224]` for messages."""
    shape = shape_of(value)
    dims = ["?" if dim is None else str(dim) for dim in shape or ()]
    shown = "of unknown shape" if shape is None else f"[{', '.join(dims)}]"
    return f"{value.name} {datatype_of(value)} {shown}"
