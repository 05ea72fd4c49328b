"""Every tensor of an ONNX graph with its shape and datatype, at one batch size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from optimizer.layers.layer import Tensor

_INLINE_ELEMENTS = 64  # shapes, axes and the like, which shape inference reads; weights are longer
_BITS = {
    **dict.fromkeys(("int4", "uint4", "float4e2m1"), 4),
    **dict.fromkeys(("bool", "int8", "uint8", "float8e4m3fn", "float8e5m2"), 8),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    **dict.fromkeys(("float", "int32", "uint32"), 32),
    **dict.fromkeys(("double", "int64", "uint64"), 64),
}
# What computes a constant of constants: an engine does it once, when it loads the graph.
_PASSES_ON = frozenset({"DequantizeLinear", "Cast", "Identity", "Transpose"})


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph whose tensors are all known.

    Args:
        nodes: the nodes that run for each batch, in the order of the graph.
        tensors: by name.
        constants: for the name of each constant, the stored tensor behind it.
    """

    nodes: tuple[NodeProto, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]


def read_graph(model: ModelProto, batch: int) -> Graph:
    """Fix the batch size and infer all shapes.

    Args:
        model: a graph whose inputs begin with the batch; their other dimensions are numbers. The bytes of its
            weights need not be there.
        batch: images to a batch.

    Raises:
        ValueError: the batch is not positive or is not what the graph is fixed to, or a shape or datatype
            cannot be known.
    """
    if batch < 1:
        raise ValueError(f"the batch must be 1 or more, got {batch}")
    light = _without_weights(model)
    _fix_batch(light, batch)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(f"the shapes of the graph do not fit together at batch {batch}: {error}") from error
    constants = _constants(inferred)
    tensors = dict(_tensors(inferred))
    nodes = tuple(node for node in inferred.graph.node if not set(node.output) <= constants.keys())
    return Graph(nodes, tensors, constants)


def _without_weights(model: ModelProto) -> ModelProto:
    """Copy all but the weights' bytes: shapes do not depend on them, and they may exceed protobuf's 2 GB."""
    graph = model.graph
    light = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.initializer.extend(map(_lightened, graph.initializer))
    return light


def _lightened(tensor: TensorProto) -> TensorProto:
    elements = 1
    for dim in tensor.dims:
        elements *= dim
    if elements <= _INLINE_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)


def _fix_batch(model: ModelProto, batch: int) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in stored or not dims:
            continue
        if dims[0].HasField("dim_value") and dims[0].dim_value != batch:
            raise ValueError(
                f"input {value.name} is fixed to batches of {dims[0].dim_value}, so it cannot be counted at "
                f"{batch}: export the network with a dynamic batch"
            )
        dims[0].dim_value = batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # it follows from the rest


def _tensors(model: ModelProto) -> Iterator[tuple[str, Tensor]]:
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name, _described(value)
    for tensor in graph.initializer:
        yield tensor.name, _stored(tensor)


def _described(value: ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    shape = tuple(dim for dim in dims if dim is not None)
    if not kind.HasField("shape") or len(shape) != len(dims):
        raise ValueError(
            f"the shape of {value.name} cannot be known without running the graph: it depends on values, or "
            "an input has an open dimension besides the batch"
        )
    return _tensor(value.name, shape, kind.elem_type)


def _stored(tensor: TensorProto) -> Tensor:
    return _tensor(tensor.name, tuple(tensor.dims), tensor.data_type)


def _tensor(name: str, shape: tuple[int, ...], element: int) -> Tensor:
    datatype = TensorProto.DataType.Name(element).lower()
    if datatype not in _BITS:
        raise ValueError(f"{name} has elements of type {datatype}; known are {', '.join(_BITS)}")
    return Tensor(name, shape, datatype, _BITS[datatype])


def _constants(model: ModelProto) -> dict[str, Tensor]:
    """Map constants to what is stored of them: behind a dequantised weight lie its bytes."""
    found = {tensor.name: _stored(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        value = _constant_value(node)
        if value is not None:
            found[node.output[0]] = value
        elif node.op_type in _PASSES_ON and all(name in found for name in node.input):
            found[node.output[0]] = found[node.input[0]]
    return found


def _constant_value(node: NodeProto) -> Tensor | None:
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    if attribute.type == AttributeProto.TENSOR:
        return _tensor(node.output[0], tuple(attribute.t.dims), attribute.t.data_type)
    kind = TensorProto.FLOAT if attribute.name.startswith("value_float") else TensorProto.INT64
    many = {AttributeProto.FLOATS: len(attribute.floats), AttributeProto.INTS: len(attribute.ints)}
    shape = (many[attribute.type],) if attribute.type in many else ()
    return _tensor(node.output[0], shape, kind)
