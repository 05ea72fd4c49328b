"""From an ONNX graph to its layers: parameters, operations and bytes of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto

from optimizer.layers.arithmetic import ABOUT_SHAPES, VIEWS, Node, multiply_adds, operations
from optimizer.layers.bodies import bodies, inlined, names_read, operators_inside
from optimizer.layers.graph import Graph, read_graph, stored_tensor, without_bytes
from optimizer.layers.layer import Layer, Tensor
from optimizer.layers.light import read_light

_HAVE_WEIGHTS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "PRelu"}
    | {"LayerNormalization", "GroupNormalization", "Add", "Sub", "Mul", "Div"}
)
_SAME = frozenset({b"SAME_UPPER", b"SAME_LOWER"})
_MEANING_THE_SAME = frozenset({"", "ai.onnx", "com.microsoft"})
"""ONNX's own operators; what ONNX Runtime calls by the same names are the same, for more datatypes."""


def count_layers_of_file(path: Path, batch: int = 1) -> tuple[Layer, ...]:
    """Read an ONNX file without its weights and count; see `count_layers`."""
    return count_layers(read_light(path), batch)


def count_layers(model: ModelProto, batch: int = 1) -> tuple[Layer, ...]:
    """Return the layers in the order of the graph.

    Constants that the graph computes of constants are no layers. A dequantisation is none either: whoever
    reads its answer reads the quantised bytes, as engines do. Parameters are the numbers that are stored: a
    normalisation that the export folded into a convolution has become its bias.

    Args:
        model: the graph; the bytes of its weights need not be there.
        batch: images to a batch.

    Raises:
        ValueError: a shape or datatype cannot be known, or the graph is fixed to another batch.
    """
    model = inlined(without_bytes(model)) if model.functions else model
    graph = read_graph(model, batch)
    behind = _dequantised(graph)
    versions = {imported.domain: imported.version for imported in model.opset_import}
    return tuple(
        _layer(node, graph, behind, versions) for node in graph.nodes if node.output[0] not in behind
    )


def _dequantised(graph: Graph) -> dict[str, str]:
    """Map what a dequantisation answers to what it reads."""
    return {node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "DequantizeLinear"}


def _layer(node: NodeProto, graph: Graph, behind: dict[str, str], versions: dict[str, int]) -> Layer:
    operator = _operator(node)
    own = operator == node.op_type  # others' attributes mean what they like
    attributes = {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute if own
    }
    outputs = tuple(graph.tensors[name] for name in node.output if name in graph.tensors)
    shapes = [graph.tensors[name].shape if name else None for name in node.input]
    arithmetic = Node(operator, shapes, [output.shape for output in outputs], attributes)
    work, kernel = operations(arithmetic), _kernel(operator, node, graph, attributes)
    return Layer(
        name=node.name or node.output[0],
        operator=operator,
        inputs=_flowing(node, graph, behind),
        weights=_weights(node, graph, known=work is not None),
        outputs=outputs,
        multiply_adds=multiply_adds(arithmetic),
        operations=work,
        moves_data=operator not in VIEWS,
        reads_data=operator not in ABOUT_SHAPES,
        kernel=kernel,
        strides=tuple(attributes.get("strides", ())),
        pads=_pads(arithmetic, kernel),
        groups=attributes.get("group", 1),
        version=_version(node, versions),
    )


def _operator(node: NodeProto) -> str:
    """Return ONNX's name; others' operators are something else whatever they are called.

    How often a body runs is known when it does, so bodies are not counted but named.
    """
    name = node.op_type if node.domain in _MEANING_THE_SAME else f"{node.domain}.{node.op_type}"
    inside = sorted(operators_inside(node))
    return f"{name}({', '.join(inside)}: not counted)" if inside else name


def _version(node: NodeProto, versions: dict[str, int]) -> int:
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return 0
    return int(schema.since_version)


def _flowing(node: NodeProto, graph: Graph, behind: dict[str, str]) -> tuple[Tensor, ...]:
    names = [behind.get(name, name) for name in names_read(node) if name and name not in graph.constants]
    return tuple(graph.tensors[name] for name in names)


def _weights(node: NodeProto, graph: Graph, *, known: bool) -> tuple[Tensor, ...]:
    """Return the constants that are learned: arrays, where a single number is a setting of the operator.

    Whether an operator that is not `known` learns is not known either: whatever is no list of whole numbers,
    such as axes, counts.
    """
    stored = [graph.constants[name] for name in names_read(node) if name in graph.constants]
    stored += [stored_tensor(tensor) for body in bodies(node) for tensor in body.initializer]
    if not known:
        return tuple(tensor for tensor in stored if tensor.shape and tensor.datatype != "int64")
    return tuple(tensor for tensor in stored if tensor.shape) if node.op_type in _HAVE_WEIGHTS else ()


def _kernel(operator: str, node: NodeProto, graph: Graph, attributes: dict[str, Any]) -> tuple[int, ...]:
    if "kernel_shape" in attributes:
        return tuple(attributes["kernel_shape"])
    if operator in {"Conv", "ConvTranspose"}:  # where it is not stated, the filters have it
        return graph.tensors[node.input[1]].shape[2:]
    return ()


def _pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """Return what is put around an image; where it shall be as much as keeps its size, what that comes to."""
    told = node.attributes.get("auto_pad", b"NOTSET")
    if told not in _SAME or node.operator == "ConvTranspose":
        return tuple(node.attributes.get("pads", ()))
    sides = zip(node.needed(0)[2:], node.outputs[0][2:], kernel, strict=True)
    ones = (1,) * len(kernel)
    steps = zip(node.attributes.get("strides", ones), node.attributes.get("dilations", ones), strict=True)
    whole = [
        max((answers - 1) * stride + (window - 1) * dilation + 1 - side, 0)
        for (side, answers, window), (stride, dilation) in zip(sides, steps, strict=True)
    ]
    first = [pad // 2 if told == b"SAME_UPPER" else pad - pad // 2 for pad in whole]
    return (*first, *(pad - begin for pad, begin in zip(whole, first, strict=True)))
