"""Every tensor of an ONNX graph with its shape and datatype, at one batch size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from optimizer.layers.layer import Tensor
from optimizer.layers.shapes import (
    batch_symbols,
    check_known,
    check_order,
    is_known,
    stated_shapes,
    unknown_answers,
)

_INLINE_ELEMENTS = 64  # shapes, axes and the like, which shape inference reads; weights are longer
_BITS = {
    **dict.fromkeys(("int4", "uint4", "float4e2m1"), 4),
    **dict.fromkeys(("bool", "int8", "uint8", "float8e4m3fn", "float8e5m2"), 8),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    **dict.fromkeys(("float", "int32", "uint32"), 32),
    **dict.fromkeys(("double", "int64", "uint64"), 64),
}
# An engine computes a constant of constants once, when it loads the graph. These keep its numbers:
_PASSES_ON = frozenset({"DequantizeLinear", "Cast", "Identity", "Transpose"})
_TAKEN_APART = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
_ONNX = frozenset({"", "ai.onnx"})
_WEIGHTS_ARE_NO_INPUTS = 4  # since this version of the format; engines take such files of any version
_BY_LOT = frozenset({"RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"})


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
    check_order(model)
    light = _light(model)
    symbols = batch_symbols(light)
    _fix_batch(light, batch)
    _stand_in(light)
    inferred = _inferred(light, batch)
    stated = list(stated_shapes(model, unknown_answers(inferred), dict.fromkeys(symbols, batch)))
    if stated:
        _state(light, stated)
        inferred = _inferred(light, batch)
    inferred.graph.ClearField("node")
    inferred.graph.node.extend(model.graph.node)
    check_known(inferred)
    tensors = dict(_tensors(inferred))
    constants = _constants(inferred, tensors)
    nodes = tuple(node for node in inferred.graph.node if not set(node.output) <= constants.keys() | {""})
    return Graph(nodes, tensors, constants)


def _inferred(model: ModelProto, batch: int) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        first = str(error).partition("\n")[0]  # the others follow from it
        raise ValueError(f"the shapes of the graph do not fit together at batch {batch}: {first}") from error


def _stand_in(model: ModelProto) -> None:
    """Put something of the same shape for operators that ONNX can only infer by taking them apart."""
    for node in model.graph.node:
        if node.op_type in _TAKEN_APART and node.domain in _ONNX:
            node.op_type = "Identity"
            node.ClearField("attribute")
            del node.input[1:]


def _state(model: ModelProto, stated: Iterable[ValueInfoProto]) -> None:
    """Put shapes into a model for what it answers with, or what lies between."""
    outputs = {value.name: value for value in model.graph.output}
    for value in stated:
        if value.name in outputs:
            outputs[value.name].CopyFrom(value)
        else:
            model.graph.value_info.append(value)


def without_bytes(model: ModelProto) -> ModelProto:
    """Copy all but the weights' bytes: shapes do not depend on them, and they may exceed protobuf's 2 GB."""
    light = _light(model)
    light.graph.value_info.extend(model.graph.value_info)
    return light


def _light(model: ModelProto) -> ModelProto:
    """Copy likewise, without the shapes that the file states in between: they may be of other batches."""
    graph = model.graph
    light = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.initializer.extend(map(_lightened, graph.initializer))
    if {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}:
        light.ir_version = max(light.ir_version, _WEIGHTS_ARE_NO_INPUTS)
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
        if dims[0].HasField("dim_value") and dims[0].dim_value not in (-1, batch):
            raise ValueError(
                f"input {value.name} is fixed to batches of {dims[0].dim_value}, so it cannot be counted at "
                f"{batch}: export the network with a dynamic batch"
            )
        dims[0].dim_value = batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # it follows from the rest


def _tensors(model: ModelProto) -> Iterator[tuple[str, Tensor]]:
    graph = model.graph
    for value in (*graph.output, *graph.value_info, *graph.input):
        if is_known(value):  # an output that is an input is stated there
            yield value.name, _described(value)
    for tensor in graph.initializer:
        yield tensor.name, stored_tensor(tensor)


def _described(value: ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    return _tensor(value.name, tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type)


def stored_tensor(tensor: TensorProto) -> Tensor:
    """Return a weight's name, shape and type. Raises ValueError for a type that is not known."""
    return _tensor(tensor.name, tuple(tensor.dims), tensor.data_type)


def _tensor(name: str, shape: tuple[int, ...], element: int) -> Tensor:
    datatype = TensorProto.DataType.Name(element).lower()
    if datatype not in _BITS:
        raise ValueError(f"{name} has elements of type {datatype}; known are {', '.join(_BITS)}")
    return Tensor(name, shape, datatype, _BITS[datatype])


def _constants(model: ModelProto, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map constants to what is kept of them: behind a dequantised weight lie its bytes."""
    found = {tensor.name: stored_tensor(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        value = _constant_value(node)
        if value is not None:
            found[node.output[0]] = value
        elif _is_computed_once(node) and all(name in found for name in node.input if name):
            passed = {node.output[0]: found[node.input[0]]} if node.op_type in _PASSES_ON else {}
            found.update({name: passed.get(name, tensors[name]) for name in node.output if name})
    return found


def _is_computed_once(node: NodeProto) -> bool:
    """Whether the same constants always give the same answer; bodies may read what is no constant."""
    bodies = any(attribute.HasField("g") for attribute in node.attribute)
    return bool(node.input) and not bodies and node.op_type not in _BY_LOT


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
