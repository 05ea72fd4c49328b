"""Every operator that the PyTorch engine knows, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from server.errors import EngineError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'boulton[torch]'")

from server.engines.pytorch.graph import load_module  # noqa: E402 - needs torch
from server.engines.pytorch.operators import OPERATORS  # noqa: E402

DICE = np.random.default_rng(3)
IMAGES = DICE.normal(size=(2, 4, 7, 9)).astype(np.float32)
POSITIVE = np.abs(IMAGES) + 0.5
ROWS = DICE.normal(size=(3, 6)).astype(np.float32)
WHOLE = DICE.integers(-20, 20, (3, 6))


def weights(*shape: int) -> np.ndarray:
    return DICE.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# operator, input, constants that follow it, attributes, opset
CASES: list[tuple[str, np.ndarray, tuple[np.ndarray | None, ...], Mapping[str, Any], int]] = [
    ("Abs", IMAGES, (), {}, 17),
    ("Add", IMAGES, (weights(4, 1, 1),), {}, 17),
    ("ArgMax", ROWS, (), {"axis": 1, "keepdims": 0}, 17),
    ("ArgMax", IMAGES, (), {"axis": -1}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 2], "strides": [2, 2]}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("BatchNormalization", IMAGES, (*(weights(4) for _ in range(3)), POSITIVE[0, :, 0, 0]), {}, 17),
    ("Cast", IMAGES * 9, (), {"to": TensorProto.INT32}, 17),
    ("Cast", IMAGES, (), {"to": TensorProto.FLOAT16}, 17),
    ("Clip", IMAGES, (np.float32(-0.3), np.float32(0.4)), {}, 17),
    ("Clip", IMAGES, (None, np.float32(0.4)), {}, 17),
    ("Clip", IMAGES, (), {"min": 0.0, "max": 6.0}, 10),
    ("Concat", IMAGES, (weights(2, 3, 7, 9),), {"axis": 1}, 17),
    ("Conv", IMAGES, (weights(5, 4, 3, 3), weights(5)), {"pads": [1, 1, 1, 1], "strides": [2, 1]}, 17),
    ("Conv", IMAGES, (weights(5, 4, 3, 3),), {"pads": [0, 1, 2, 1], "dilations": [2, 1]}, 17),
    ("Conv", IMAGES, (weights(8, 1, 3, 3),), {"group": 4}, 17),
    ("Conv", IMAGES[:, :, 0], (weights(5, 4, 3), weights(5)), {}, 17),
    ("Conv", IMAGES, (weights(5, 4, 1, 1),), {"auto_pad": "VALID"}, 17),
    ("Div", IMAGES, (POSITIVE,), {}, 17),
    ("Div", WHOLE, (ints(7, 3, 2, -3, 5, 4),), {}, 17),
    ("Dropout", IMAGES, (), {}, 17),
    ("Exp", IMAGES, (), {}, 17),
    ("Flatten", IMAGES, (), {}, 17),
    ("Flatten", IMAGES, (), {"axis": 2}, 17),
    ("Gather", IMAGES, (ints(2, -1),), {"axis": 1}, 17),
    ("Gather", IMAGES, (np.int64(1),), {"axis": 2}, 17),
    ("Gelu", IMAGES, (), {}, 20),
    ("Gelu", IMAGES, (), {"approximate": "tanh"}, 20),
    ("Gemm", ROWS, (weights(6, 4), weights(4)), {}, 17),
    ("Gemm", ROWS, (weights(4, 6), weights(4)), {"transB": 1}, 17),
    ("Gemm", ROWS, (weights(3, 4), weights(4)), {"transA": 1, "alpha": 0.5, "beta": 2.0}, 17),
    ("Gemm", ROWS, (weights(6, 4),), {"alpha": 0.5}, 17),
    ("GlobalAveragePool", IMAGES, (), {}, 17),
    ("GlobalMaxPool", IMAGES, (), {}, 17),
    ("HardSigmoid", IMAGES * 3, (), {"alpha": 1 / 6}, 17),
    ("HardSwish", IMAGES * 3, (), {}, 17),
    ("Identity", IMAGES, (), {}, 17),
    ("LRN", IMAGES, (), {"size": 3, "alpha": 0.1, "beta": 0.7, "bias": 2.0}, 17),
    ("LeakyRelu", IMAGES, (), {"alpha": 0.1}, 17),
    ("LogSoftmax", ROWS, (), {}, 17),
    ("MatMul", ROWS, (weights(6, 4),), {}, 17),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 17),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 17),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("Mul", IMAGES, (weights(1),), {}, 17),
    ("Neg", IMAGES, (), {}, 17),
    ("Pad", IMAGES, (ints(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.5)), {}, 17),
    ("Pad", IMAGES, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "reflect"}, 17),
    ("Pad", IMAGES, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "edge"}, 17),
    ("Pow", POSITIVE, (np.float32(1.7),), {}, 17),
    ("ReduceMax", IMAGES, (), {"axes": [1]}, 17),
    ("ReduceMean", IMAGES, (), {"axes": [2, 3], "keepdims": 0}, 17),
    ("ReduceMean", IMAGES, (ints(-1, -2),), {}, 18),
    ("ReduceMean", IMAGES, (), {}, 18),
    ("ReduceMean", IMAGES, (), {"noop_with_empty_axes": 1}, 18),
    ("ReduceSum", IMAGES, (ints(1),), {"keepdims": 0}, 17),
    ("Relu", IMAGES, (), {}, 17),
    ("Reshape", IMAGES, (ints(0, -1, 9),), {}, 17),
    ("Sigmoid", IMAGES, (), {}, 17),
    ("Slice", IMAGES, (ints(1, 0), ints(2**62, -1), ints(1, -1), ints(2, 3)), {}, 17),
    ("Slice", IMAGES, (ints(0, 1), ints(1, 3)), {}, 17),
    ("Softmax", IMAGES, (), {"axis": 1}, 17),
    ("Softmax", IMAGES, (), {"axis": 1}, 11),
    ("Sqrt", POSITIVE, (), {}, 17),
    ("Squeeze", IMAGES[:1, :, :1], (ints(0, 2),), {}, 17),
    ("Squeeze", IMAGES[:1, :, :1], (), {}, 17),
    ("Sub", IMAGES, (weights(9),), {}, 17),
    ("Sum", IMAGES, (weights(9), weights(7, 1)), {}, 17),
    ("Tanh", IMAGES, (), {}, 17),
    ("Transpose", IMAGES, (), {"perm": [0, 2, 3, 1]}, 17),
    ("Transpose", IMAGES, (), {}, 17),
    ("Unsqueeze", ROWS, (ints(2, 0),), {}, 17),
    ("Unsqueeze", ROWS, (ints(-1),), {}, 17),
]


def one_node(
    kind: str,
    given: np.ndarray,
    constants: tuple[np.ndarray | None, ...],
    attributes: Mapping[str, Any],
    opset: int,
    outputs: int = 1,
) -> onnx.ModelProto:
    made = [
        onnx.numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants) if c is not None
    ]
    names = ["" if constant is None else f"c{i}" for i, constant in enumerate(constants)]
    node = helper.make_node(kind, ["x", *names], [f"y{i}" for i in range(outputs)], **attributes)
    return model([node], given, made, opset, [f"y{i}" for i in range(outputs)])


def model(
    nodes: list[onnx.NodeProto],
    given: np.ndarray,
    constants: list[onnx.TensorProto],
    opset: int,
    outputs: list[str],
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info(
        "x", helper.np_dtype_to_tensor_dtype(given.dtype), ("n", *given.shape[1:])
    )
    graph = helper.make_graph(
        nodes, "test", [x], [onnx.ValueInfoProto(name=name) for name in outputs], constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def compare(made: onnx.ModelProto, given: np.ndarray, directory: Path) -> None:
    path = directory / "model.onnx"
    onnx.save(made, path)
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": given})
    with torch.inference_mode():
        found = [output.numpy() for output in load_module(path)(torch.from_numpy(given))]
    assert [(a.shape, a.dtype) for a in found] == [(b.shape, b.dtype) for b in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_an_operator_computes_what_onnxruntime_computes(case: tuple[Any, ...], tmp_path: Path) -> None:
    compare(one_node(*case), case[1], tmp_path)


def test_split_into_named_and_into_equal_parts(tmp_path: Path) -> None:
    compare(one_node("Split", IMAGES, (ints(1, 3),), {"axis": 1}, 17, 2), IMAGES, tmp_path)
    compare(one_node("Split", IMAGES, (), {"axis": 2, "num_outputs": 2}, 18, 2), IMAGES, tmp_path)


def test_lengths_are_computed_where_they_are_known_late(tmp_path: Path) -> None:
    """What exporters make of `x.view(x.size(0), -1, 3)`."""
    constants = {"zero": ints(0), "front": ints(0), "rest": ints(-1), "three": ints(3), "half": ints(2)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Slice", ["shape", "three", "rest_of"], ["wide"]),
        helper.make_node("Div", ["wide", "three"], ["third"]),
        helper.make_node("Mul", ["batch", "half"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["count"], to=TensorProto.INT64),
        helper.make_node("Concat", ["count", "rest", "third"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants["rest_of"] = ints(4)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    compare(model(nodes, IMAGES, tensors, 17, ["y"]), IMAGES, tmp_path)


def test_every_operator_is_compared() -> None:
    compared = {case[0] for case in CASES} | {"Split", "Shape", "Constant"}
    assert set(OPERATORS) == compared


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (one_node("Erf", IMAGES, (), {}, 17), r"operator Erf \(node 'it'\) has no counterpart"),
        (one_node("LRN", IMAGES, (), {"size": 4}, 17), r"LRN \(node 'it'\): an even size \(4\)"),
        (
            one_node("MaxPool", IMAGES, (), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, 17),
            "SAME_UPPER",
        ),
        (one_node("Reshape", IMAGES, (ints(0, -1),), {"allowzero": 1}, 17), "empty tensors"),
        (one_node("Slice", IMAGES, (ints(-1), ints(0), ints(1), ints(-1)), {}, 17), "steps backwards"),
        (one_node("Pad", IMAGES, (ints(0, 0, 0, 1, 0, 0, 0, 1),), {"mode": "wrap"}, 19), "mode wrap"),
        (one_node("ArgMax", ROWS, (), {"select_last_index": 1}, 17), "last of equal"),
    ],
)
def test_what_has_no_counterpart_is_named(made: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    made.graph.node[0].name = "it"
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    with pytest.raises(EngineError, match=words) as raised:
        load_module(path)
    assert str(path) in str(raised.value)
    assert "choose another engine" in str(raised.value)


def test_operators_of_another_domain_are_named(tmp_path: Path) -> None:
    made = one_node("Relu", IMAGES, (), {}, 17)
    made.graph.node[0].domain = "com.example"
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    with pytest.raises(EngineError, match="operator Relu"):
        load_module(path)
