"""From an ONNX graph to its layers: parameters, operations and bytes of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto

from optimizer.layers.arithmetic import VIEWS, Node, multiply_adds, operations
from optimizer.layers.graph import Graph, read_graph
from optimizer.layers.layer import Layer, Tensor
from optimizer.layers.light import read_light

_HAVE_WEIGHTS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization", "PRelu"}
    | {"LayerNormalization", "GroupNormalization", "Add", "Sub", "Mul", "Div"}
)


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
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs = tuple(graph.tensors[name] for name in node.output if name in graph.tensors)
    shapes = [graph.tensors[name].shape if name else None for name in node.input]
    arithmetic = Node(node.op_type, shapes, [output.shape for output in outputs], attributes)
    return Layer(
        name=node.name or node.output[0],
        operator=node.op_type,
        inputs=_flowing(node, graph, behind),
        weights=_weights(node, graph),
        outputs=outputs,
        multiply_adds=multiply_adds(arithmetic),
        operations=operations(arithmetic),
        moves_data=node.op_type not in VIEWS,
        kernel=_kernel(node, graph, attributes),
        strides=tuple(attributes.get("strides", ())),
        pads=tuple(attributes.get("pads", ())),
        groups=attributes.get("group", 1),
        version=_version(node, versions),
    )


def _version(node: NodeProto, versions: dict[str, int]) -> int:
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return 0
    return int(schema.since_version)


def _flowing(node: NodeProto, graph: Graph, behind: dict[str, str]) -> tuple[Tensor, ...]:
    names = [behind.get(name, name) for name in node.input if name and name not in graph.constants]
    return tuple(graph.tensors[name] for name in names)


def _weights(node: NodeProto, graph: Graph) -> tuple[Tensor, ...]:
    """Return the constants that are learned: arrays, where a single number is a setting of the operator."""
    if node.op_type not in _HAVE_WEIGHTS:
        return ()
    stored = [graph.constants[name] for name in node.input if name in graph.constants]
    return tuple(tensor for tensor in stored if tensor.shape)


def _kernel(node: NodeProto, graph: Graph, attributes: dict[str, Any]) -> tuple[int, ...]:
    if "kernel_shape" in attributes:
        return tuple(attributes["kernel_shape"])
    if node.op_type in {"Conv", "ConvTranspose"}:  # where it is not stated, the filters have it
        return graph.tensors[node.input[1]].shape[2:]
    return ()
