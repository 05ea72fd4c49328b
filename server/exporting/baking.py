"""Putting the preprocessing into the graph, so that clients send the bytes of a picture as they are.

UINT8 `[batch, height, width, channels]` -> Cast -> Transpose -> Sub -> Mul -> the network. Cast comes first
since TensorRT takes UINT8 as a network input only in front of a Cast; other orders are no faster on a CPU.
Sub comes before Mul since integers stay exact for longest that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from optimizer.layers.bodies import bodies
from server.errors import ExportError
from server.exporting.preprocessing import Preprocessing
from server.onnx_graph import Shape, datatype_of, describe, graph_inputs, shape_of

_CHANNELS = (1, 3)
_FLOATS = {"FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16}


def image_shape(model: ModelProto) -> tuple[int, int, int] | None:
    """Return (channels, height, width) if the only input is a float picture of 1 or 3 channels, NCHW."""
    inputs = graph_inputs(model)
    if len(inputs) != 1 or datatype_of(inputs[0]) not in _FLOATS:
        return None
    match shape_of(inputs[0]):
        case (_, int(channels), int(height), int(width)) if channels in _CHANNELS and height and width:
            return channels, height, width
    return None


def bake_uint8(model: ModelProto, preprocessing: Preprocessing) -> ModelProto:
    """Return a copy whose input keeps its name but takes UINT8 `[batch, height, width, channels]`.

    Raises:
        ExportError: the graph does not take one float picture `[batch, channels, height, width]`.
    """
    size = image_shape(model)
    if size is None:
        found = "; ".join(map(describe, graph_inputs(model))) or "no input"
        raise ExportError(
            "--input uint8 needs a network with one float input [batch, 1 or 3 channels, height, width]; "
            f"this one takes {found}"
        )
    preprocessing.check_channels(size[0])
    baked = ModelProto()
    baked.CopyFrom(model)
    _prepend(baked, preprocessing, size)
    return baked


def _prepend(model: ModelProto, preprocessing: Preprocessing, size: tuple[int, int, int]) -> None:
    graph = model.graph
    (value,) = graph_inputs(model)
    name, normalised = value.name, _free_name(model, f"{value.name}_normalised")
    nodes, constants = _normalisation(name, normalised, preprocessing, _FLOATS[datatype_of(value)])
    _rename_input(graph, name, normalised)
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    graph.initializer.extend(constants)
    _declare_uint8(value, shape_of(value), size)


def _rename_input(graph: GraphProto, old: str, new: str) -> None:
    """Let every node read `new` instead of `old`, in the branches of If and the bodies of Loop as well."""
    for node in graph.node:
        node.input[:] = [new if given == old else given for given in node.input]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename_input(attribute.g, old, new)


def _normalisation(
    name: str, normalised: str, preprocessing: Preprocessing, precision: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes from `name` to `normalised`; steps that would change nothing are left out."""
    steps: list[tuple[str, NDArray[np.float32] | None]] = [("Cast", None), ("Transpose", None)]
    steps += [("Sub", preprocessing.shift)] if preprocessing.shift.any() else []
    steps += [("Mul", preprocessing.gain)] if (preprocessing.gain != 1).any() else []
    steps += [("Cast", None)] if precision != TensorProto.FLOAT else []
    nodes, constants, given = [], [], name
    for position, (operator, values) in enumerate(steps):
        out = normalised if position == len(steps) - 1 else f"{normalised}_{position}"
        operands = [given]
        if values is not None:
            constants.append(numpy_helper.from_array(values.reshape(-1, 1, 1), f"{out}_{operator.lower()}"))
            operands.append(constants[-1].name)
        to = precision if position else TensorProto.FLOAT
        attributes: dict[str, dict[str, Any]] = {"Cast": {"to": to}, "Transpose": {"perm": [0, 3, 1, 2]}}
        nodes.append(
            helper.make_node(
                operator,
                operands,
                [out],
                name=f"{out}_{operator.lower()}_node",
                **attributes.get(operator, {}),
            )
        )
        given = out
    return nodes, constants


def _declare_uint8(value: ValueInfoProto, shape: Shape | None, size: tuple[int, int, int]) -> None:
    channels, height, width = size
    batch = shape[0] if shape else None
    declared = helper.make_tensor_value_info(value.name, TensorProto.UINT8, [batch, height, width, channels])
    value.CopyFrom(declared)


def _names_made(graph: GraphProto) -> Iterator[str]:
    """Yield what weights and answers are called, in the branches of If and the bodies of Loop as well."""
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for body in bodies(node):
            yield from _names_made(body)


def _free_name(model: ModelProto, wanted: str) -> str:
    taken = set(_names_made(model.graph))
    while any(name.startswith(wanted) for name in taken):
        wanted += "_"
    return wanted
