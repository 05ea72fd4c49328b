"""Small networks, written down node by node, over pictures of 8 by 8 pixels."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimizer.layers.count import count_layers
from optimizer.layers.fusion import Step, fuse

Node = tuple[str, list[str], str, dict[str, object]]
"""Operator, what it reads, what it makes, attributes."""


def network(channels: int, *nodes: Node, opset: int = 20, **weights: tuple[int, ...]) -> ModelProto:
    made = [helper.make_node(kind, reads, [out], name=out, **more) for kind, reads, out, more in nodes]
    graph = helper.make_graph(
        made,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, 8, 8])],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(s, np.float32), name) for name, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def steps(model: ModelProto, batch: int = 1) -> tuple[Step, ...]:
    return fuse(count_layers(model, batch))
