"""Graphs inside of graphs: the bodies of If, Loop and Scan, and functions that a file brings along."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto
from onnx.inliner import inline_local_functions


def inlined(model: ModelProto) -> ModelProto:
    """Return a model without functions of its own: what they consist of stands where they were called.

    Args:
        model: whose weights have no bytes, where these may exceed protobuf's 2 GB.

    Raises:
        ValueError: a function calls itself, or another that the file does not have.
    """
    if not model.functions:
        return model
    try:
        return inline_local_functions(model)
    except Exception as error:  # onnx raises errors of C++ without a common type
        raise ValueError(f"the functions of the file cannot be resolved: {error}") from error


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node runs inside, without those inside of these."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_read(node: NodeProto) -> tuple[str, ...]:
    """Return what a node reads: its inputs, then what its bodies take from around it."""
    inside = [name for body in bodies(node) for name in _from_around(body)]
    return (*node.input, *dict.fromkeys(name for name in inside if name not in node.input))


def _from_around(body: GraphProto) -> Iterator[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        yield from (name for name in names_read(node) if name and name not in own)


def operators_inside(node: NodeProto) -> frozenset[str]:
    """Return the names of all operators in the bodies of a node, and in those inside of these."""
    found = (inner for body in bodies(node) for inner in body.node)
    return frozenset(name for inner in found for name in (inner.op_type, *operators_inside(inner)))
