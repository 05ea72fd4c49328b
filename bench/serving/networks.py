"""The networks that are served while measuring: as ONNX files, made here, with weights from a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 224
HWC = (SIDE, SIDE, 3)
CHW = (3, SIDE, SIDE)
CLASSES = 10
INPUT = "image"
OUTPUT = "scores"
OPSET = 20
IR_VERSION = 10
_DATATYPES = {"UINT8": TensorProto.UINT8, "FP32": TensorProto.FLOAT}
Constants: TypeAlias = dict[str, NDArray[np.generic]]


def write_negligible(path: Path, datatype: str) -> None:
    """Write a network that costs microseconds: it looks at every 56th pixel of [batch, 224, 224, 3]."""
    rng = np.random.default_rng(0)
    constants: Constants = {
        "starts": np.zeros(2, np.int64),
        "ends": np.full(2, SIDE, np.int64),
        "axes": np.array([1, 2], np.int64),
        "steps": np.full(2, 56, np.int64),
        "weight": rng.standard_normal((3, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Slice", [INPUT, "starts", "ends", "axes", "steps"], ["sample"]),
        helper.make_node("Cast", ["sample"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], [OUTPUT]),
    ]
    _save(path, "negligible", datatype, HWC, nodes, constants)


def write_small_cnn(path: Path, datatype: str) -> None:
    """Write two convolutions over [batch, 3, 224, 224]: about 1.2 million multiply-adds an image."""
    rng = np.random.default_rng(0)
    constants: Constants = {"axes": np.array([2, 3], np.int64)}
    nodes = [helper.make_node("Cast", [INPUT], ["x0"], to=TensorProto.FLOAT)]
    for layer, (inputs, outputs, kernel, stride) in enumerate([(3, 8, 7, 8), (8, 16, 3, 2)]):
        weight = rng.standard_normal((outputs, inputs, kernel, kernel)) / np.sqrt(inputs * kernel**2)
        constants[f"w{layer}"] = weight.astype(np.float32)
        nodes += _convolution(layer, kernel, stride)
    constants["weight"] = rng.standard_normal((16, CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("ReduceMean", ["x2", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], [OUTPUT]),
    ]
    _save(path, "small_cnn", datatype, CHW, nodes, constants)


def _convolution(layer: int, kernel: int, stride: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node(
            "Conv",
            [f"x{layer}", f"w{layer}"],
            [f"c{layer}"],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        ),
        helper.make_node("Relu", [f"c{layer}"], [f"x{layer + 1}"]),
    ]


def _save(
    path: Path,
    name: str,
    datatype: str,
    shape: tuple[int, int, int],
    nodes: Sequence[onnx.NodeProto],
    constants: Constants,
) -> None:
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(INPUT, _DATATYPES[datatype], ["batch", *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_repository(root: Path) -> Path:
    """Write `negligible-uint8`, `negligible-fp32`, `small-uint8` and `small-fp32`; return `root`."""
    for datatype in _DATATYPES:
        write_negligible(root / f"negligible-{datatype.lower()}" / "1" / "model.onnx", datatype)
        write_small_cnn(root / f"small-{datatype.lower()}" / "1" / "model.onnx", datatype)
    return root


def images(datatype: str, count: int, shape: tuple[int, int, int] = HWC) -> NDArray[np.generic]:
    """Return random images [count, *shape] of the given datatype, the same on every call."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)
    return pixels if datatype == "UINT8" else pixels.astype(np.float32) / 255
