"""A CNN of a few layers as ONNX, for what takes networks apart: every way of fusing occurs in it once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

CHANNELS = 32
SIZE = 16
CLASSES = 10


def small_cnn() -> ModelProto:
    """Convolution and clip, depthwise and clip, pointwise and sum and ReLU, pooling, classes."""
    weights: list[TensorProto] = []
    make = _maker(weights)
    nodes = [
        helper.make_node("Sub", ["images", make("mean", (1, 3, 1, 1))], ["centred"], "subtract"),
        _conv("stem", "centred", make("stem.w", (CHANNELS, 3, 3, 3)), pads=[1] * 4),
        helper.make_node("Relu", ["stem_out"], ["stem_act"], "stem_relu"),
        _conv("depth", "stem_act", make("depth.w", (CHANNELS, 1, 3, 3)), pads=[1] * 4, group=CHANNELS),
        helper.make_node("Relu", ["depth_out"], ["depth_act"], "depth_relu"),
        _conv("point", "depth_act", make("point.w", (CHANNELS, CHANNELS, 1, 1))),
        helper.make_node("Add", ["point_out", "stem_act"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["sum_act"], "add_relu"),
        helper.make_node("GlobalAveragePool", ["sum_act"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", make("dense.w", (CHANNELS, CLASSES))], ["classes"], "dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_small_cnn(folder: Path) -> Path:
    """Write it into a folder and return the file."""
    path = folder / "small.onnx"
    onnx.save(small_cnn(), path)
    return path


def _maker(weights: list[TensorProto]):  # noqa: ANN202
    noise = np.random.default_rng(0)

    def make(name: str, shape: tuple[int, ...]) -> str:
        weights.append(numpy_helper.from_array(noise.standard_normal(shape).astype(np.float32), name))
        return name

    return make


def _conv(name: str, given: str, weights: str, **attributes: object) -> NodeProto:
    return helper.make_node("Conv", [given, weights], [f"{name}_out"], name, **attributes)
