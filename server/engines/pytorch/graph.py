"""An ONNX graph as a torch.fx module: the same network and weights in PyTorch's own operators.

The network comes from the ONNX file, so that every engine runs the same one. The converters that can be
installed import torchvision, which does not load beside a CPU build of PyTorch; what CNNs use is little
enough to know here (`operators.OPERATORS`), and anything else is refused by name.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import onnx
from torch import fx

from server.engines.plain_graph import load_plain
from server.engines.pytorch.operands import Builder, Operands, Unsupported, Value
from server.engines.pytorch.operators import OPERATORS
from server.errors import EngineError
from server.onnx_graph import Shape, graph_inputs, shape_of

_DOMAINS = ("", "ai.onnx")


def load_module(path: Path) -> fx.GraphModule:
    """Read an ONNX file (external data beside it) into a module on the CPU, in evaluation mode.

    Its forward takes the graph's inputs in order and returns a tuple of the outputs in order.

    Raises:
        EngineError: the file is not readable, or holds an operator that is not known; says which.
    """
    model = load_plain(path)
    try:
        return _convert(model)
    except Unsupported as error:
        raise EngineError(f"PyTorch cannot run {path}: {error}; choose another engine") from error


def _convert(model: onnx.ModelProto) -> fx.GraphModule:
    builder = Builder()
    values: dict[str, Value] = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    for index, value in enumerate(graph_inputs(model)):
        values[value.name] = builder.input(index)
    opset = max((entry.version for entry in model.opset_import if entry.domain in _DOMAINS), default=1)
    shapes = _shapes(model)
    for node in model.graph.node:
        builder.begin(node.name or next(iter(node.output), ""))
        made = _outputs(builder, node, values, shapes.get(next(iter(node.input), "")), opset)
        values.update(zip(node.output, made, strict=False))
    return builder.finish(tuple(builder.tensor(values[output.name]) for output in model.graph.output))


def _shapes(model: onnx.ModelProto) -> dict[str, Shape | None]:
    graph = model.graph
    with suppress(Exception):  # a foreign operator, or more weights than fit a message: few need a shape
        graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: shape_of(value) for value in (*graph.input, *graph.value_info, *graph.output)}


def _outputs(
    builder: Builder, node: onnx.NodeProto, values: dict[str, Value], shape: Shape | None, opset: int
) -> tuple[Value, ...]:
    operator = OPERATORS.get(node.op_type) if node.domain in _DOMAINS else None
    if operator is None:
        raise Unsupported(f"operator {node.op_type} (node '{node.name}') has no counterpart here")
    given = tuple(values[name] if name else None for name in node.input)
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    try:
        made = operator(Operands(builder, given, attributes, shape, opset, len(node.output)))
    except Unsupported as error:
        raise Unsupported(f"{node.op_type} (node '{node.name}'): {error}") from error
    return made if isinstance(made, tuple) else (made,)
