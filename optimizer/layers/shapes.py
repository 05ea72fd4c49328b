"""Shapes that inference cannot tell: those that the file states itself, and why others are not known.

Engines have operators of their own, which ONNX's shape inference knows nothing of. Whoever wrote the graph
often stated the shapes of what they answer with.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from optimizer.layers.bodies import names_read


def batch_symbols(model: ModelProto) -> frozenset[str]:
    """Return what the inputs call their first dimension, where they give it a name."""
    firsts = [value.type.tensor_type.shape.dim[:1] for value in model.graph.input]
    return frozenset(dim.dim_param for first in firsts for dim in first if dim.dim_param)


def is_known(value: ValueInfoProto) -> bool:
    """Whether all dimensions are numbers; some converters write -1 for what they do not know."""
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(
        dim.HasField("dim_value") and dim.dim_value >= 0 for dim in kind.shape.dim
    )


def unknown_answers(model: ModelProto) -> dict[str, NodeProto]:
    """Return what the nodes answer with and whose shape is not known, in the order of the graph."""
    graph = model.graph
    known = {value.name for value in (*graph.value_info, *graph.output) if is_known(value)}
    return {name: node for node in graph.node for name in node.output if name and name not in known}


def stated_shapes(
    model: ModelProto, wanted: Container[str], sizes: Mapping[str, int]
) -> Iterator[ValueInfoProto]:
    """Yield those of the tensors `wanted` whose shapes the file states.

    Args:
        model: as it is in the file.
        wanted: names of tensors.
        sizes: what dimensions with a name are.
    """
    for value in (*model.graph.value_info, *model.graph.output):
        if value.name in wanted:
            found = ValueInfoProto()
            found.CopyFrom(value)
            for dim in found.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
            if is_known(found):
                yield found


def check_known(model: ModelProto) -> None:
    """Raise ValueError for the first tensor whose shape is not known, with the reason."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in stored and not is_known(value):
            raise ValueError(
                f"the shape of input {value.name} cannot be known: it is left open besides the batch; export "
                "the network with numbers there"
            )
    for name, node in unknown_answers(model).items():
        raise ValueError(
            f"the shape of {name} cannot be known without running the graph: {_why(node, model)}"
        )


def check_order(model: ModelProto) -> None:
    """Raise ValueError for the first node that reads what nothing before it makes."""
    made = {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    for node in model.graph.node:
        if missing := [name for name in names_read(node) if name and name not in made]:
            told = f"{node.op_type} {node.name}".strip()
            raise ValueError(f"{told} reads {missing[0]}, which nothing before it in the graph makes")
        made.update(node.output)


def _why(node: NodeProto, model: ModelProto) -> str:
    versions = {imported.domain: imported.version for imported in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    if (node.domain, node.op_type) not in own and not onnx.defs.has(
        node.op_type, versions.get(node.domain, 1), node.domain
    ):
        domain = f" of {node.domain}" if node.domain else ""
        return f"{node.op_type}{domain}, which makes it, is none of ONNX's, and the file does not state it"
    return f"{node.op_type}, which makes it, may answer with shapes that depend on values"
