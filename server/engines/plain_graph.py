"""An ONNX graph as a list of ONNX's own operators, each after those that it reads, for whoever walks it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

from optimizer.layers.bodies import inlined
from server.errors import EngineError


def load_plain(path: Path) -> ModelProto:
    """Read an ONNX file with its weights (external data beside it).

    Functions of the file are replaced by what they consist of. ONNX wants nodes in order, but engines take
    files where they are not.

    Raises:
        EngineError: the file is not readable, or a node reads what none makes.
    """
    try:
        model = inlined(onnx.load(str(path)))
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise EngineError(f"{path}: not a readable ONNX file: {error}") from error
    made = {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    try:
        nodes = tuple(_in_order(model.graph.node, made))
    except ValueError as error:
        raise EngineError(f"{path}: {error}") from error
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _in_order(nodes: Iterable[NodeProto], made: set[str]) -> Iterator[NodeProto]:
    """Yield the nodes, those that come too early later: in one pass where none does."""
    waiting = list(nodes)
    while waiting:
        early = []
        for node in waiting:
            if _missing(node, made):
                early.append(node)
            else:
                made.update(node.output)
                yield node
        if len(early) == len(waiting):
            told = f"{early[0].op_type} {early[0].name}".strip()
            raise ValueError(f"{told} reads {_missing(early[0], made)}, which nothing in the graph makes")
        waiting = early


def _missing(node: NodeProto, made: set[str]) -> str:
    return next((name for name in node.input if name and name not in made), "")
