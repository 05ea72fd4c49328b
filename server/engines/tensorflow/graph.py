"""An ONNX graph as a TensorFlow function: the same network and weights, its images kept as pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf

from server.engines.engine import TensorSpec
from server.engines.plain_graph import load_plain
from server.engines.tensorflow.layout import Laid, Value, as_onnx
from server.engines.tensorflow.operators import OPERATORS, Node, Unsupported
from server.errors import EngineError
from server.onnx_graph import graph_inputs

_DOMAINS = ("", "ai.onnx")


def load_function(path: Path, inputs: tuple[TensorSpec, ...], *, batched: bool) -> Callable[..., Any]:
    """Read an ONNX file (external data beside it) and trace it once, for any batch.

    The function takes the inputs in order and returns a tuple of the outputs in order.

    Raises:
        EngineError: the file is not readable, or holds an operator that is not known; says which.
    """
    model = load_plain(path)
    rows = [None] if batched else []
    signature = [tf.TensorSpec([*rows, *spec.shape], spec.dtype) for spec in inputs]
    try:
        traced = tf.function(lambda *given: _run(model, given), autograph=False)
        function: Callable[..., Any] = traced.get_concrete_function(*signature)
        return function
    except Unsupported as error:
        raise EngineError(f"TensorFlow cannot run {path}: {error}; choose another engine") from error


def _run(model: onnx.ModelProto, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Walk the nodes in order, while the function is traced."""
    values: dict[str, Value] = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    for declared, tensor in zip(graph_inputs(model), given, strict=True):
        values[declared.name] = Laid(tensor)
    opset = max((entry.version for entry in model.opset_import if entry.domain in _DOMAINS), default=1)
    for node in model.graph.node:
        values[node.output[0]] = _output(node, values, opset)
    return tuple(as_onnx(values[output.name]) for output in model.graph.output)


def _output(node: onnx.NodeProto, values: dict[str, Value], opset: int) -> Value:
    operator = OPERATORS.get(node.op_type) if node.domain in _DOMAINS else None
    if operator is None or len(node.output) != 1:
        raise Unsupported(f"operator {node.op_type} (node '{node.name}') has no counterpart here")
    given = tuple(values[name] if name else None for name in node.input)
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    try:
        return operator(Node(given, attributes, opset))
    except Unsupported as error:
        raise Unsupported(f"{node.op_type} (node '{node.name}'): {error}") from error
