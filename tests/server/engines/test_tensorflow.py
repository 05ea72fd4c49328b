"""TensorFlow, which is only compared with: its operators, and what is particular to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from server.errors import EngineError

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'boulton[tensorflow]'")

from server.engines.tensorflow.engine import load_tensorflow_engine
from server.engines.tensorflow.operators import OPERATORS

DICE = np.random.default_rng(5)
IMAGES = DICE.normal(size=(2, 4, 7, 9)).astype(np.float32)
ROWS = DICE.normal(size=(3, 6)).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    return DICE.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


NORM = (weights(4), weights(4), weights(4), np.abs(weights(4)) + 0.5)
Case = tuple[str, np.ndarray, tuple[np.ndarray | None, ...], Mapping[str, Any], int]

CASES: list[Case] = [
    ("Add", IMAGES, (weights(4, 1, 1),), {}, 17),
    ("ArgMax", ROWS, (), {"axis": 1, "keepdims": 0}, 17),
    ("ArgMax", IMAGES, (), {"axis": 1}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 2], "strides": [2, 2]}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 17),
    ("AveragePool", IMAGES, (), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("BatchNormalization", IMAGES, NORM, {}, 17),
    ("Cast", IMAGES * 9, (), {"to": TensorProto.INT32}, 17),
    ("Clip", IMAGES, (np.float32(-0.3), np.float32(0.4)), {}, 17),
    ("Clip", IMAGES, (None, np.float32(0.4)), {}, 17),
    ("Concat", IMAGES, (weights(2, 3, 7, 9),), {"axis": 1}, 17),
    ("Conv", IMAGES, (weights(5, 4, 3, 3), weights(5)), {"pads": [1, 1, 1, 1], "strides": [2, 1]}, 17),
    ("Conv", IMAGES, (weights(5, 4, 3, 3),), {"pads": [0, 1, 2, 1], "dilations": [2, 1]}, 17),
    ("Conv", IMAGES, (weights(8, 1, 3, 3), weights(8)), {"group": 4, "strides": [2, 2]}, 17),
    ("Conv", IMAGES, (weights(6, 2, 3, 3),), {"group": 2}, 17),
    ("Div", IMAGES, (np.abs(weights(9)) + 0.5,), {}, 17),
    ("Dropout", IMAGES, (), {}, 17),
    ("Flatten", IMAGES, (), {}, 17),
    ("Gather", IMAGES, (ints(2, 0),), {"axis": 1}, 17),
    ("Gemm", ROWS, (weights(4, 6), weights(4)), {"transB": 1}, 17),
    ("Gemm", ROWS, (weights(6, 4), weights(4)), {"alpha": 0.5, "beta": 2.0}, 17),
    ("GlobalAveragePool", IMAGES, (), {}, 17),
    ("GlobalMaxPool", IMAGES, (), {}, 17),
    ("HardSigmoid", IMAGES * 3, (), {"alpha": 1 / 6}, 17),
    ("HardSwish", IMAGES * 3, (), {}, 17),
    ("Identity", IMAGES, (), {}, 17),
    ("LRN", IMAGES, (), {"size": 3, "alpha": 0.1, "beta": 0.7, "bias": 2.0}, 17),
    ("LeakyRelu", IMAGES, (), {"alpha": 0.1}, 17),
    ("MatMul", ROWS, (weights(6, 4),), {}, 17),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 17),
    ("MaxPool", IMAGES, (), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("Mul", IMAGES, (weights(1),), {}, 17),
    ("Pad", IMAGES, (ints(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.5)), {}, 17),
    ("ReduceMax", IMAGES, (), {"axes": [1]}, 17),
    ("ReduceMean", IMAGES, (), {"axes": [2, 3], "keepdims": 0}, 17),
    ("ReduceMean", IMAGES, (ints(-1, -2),), {}, 18),
    ("ReduceSum", IMAGES, (ints(1),), {"keepdims": 0}, 17),
    ("Relu", IMAGES, (), {}, 17),
    ("Reshape", IMAGES, (ints(0, -1, 9),), {}, 17),
    ("Sigmoid", IMAGES, (), {}, 17),
    ("Slice", IMAGES, (ints(1, 0), ints(2**62, -1), ints(1, -1), ints(2, 3)), {}, 17),
    ("Softmax", ROWS, (), {}, 17),
    ("Softmax", IMAGES, (), {"axis": 1}, 17),
    ("Squeeze", np.ascontiguousarray(IMAGES[:, :1]), (ints(1),), {}, 17),
    ("Sub", IMAGES, (weights(9),), {}, 17),
    ("Sum", IMAGES, (weights(9), weights(7, 1)), {}, 17),
    ("Tanh", IMAGES, (), {}, 17),
    ("Transpose", IMAGES, (), {"perm": [0, 3, 2, 1]}, 17),
]


def write(
    directory: Path,
    case: Case,
    *,
    after_convolution: bool = False,
) -> Path:
    """One operator; or a convolution before it, so that it meets pixels."""
    kind, given, constants, attributes, opset = case
    made = [
        onnx.numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants) if c is not None
    ]
    names = ["" if constant is None else f"c{i}" for i, constant in enumerate(constants)]
    nodes = [helper.make_node(kind, ["m" if after_convolution else "x", *names], ["y"], "it", **attributes)]
    if after_convolution:
        mix = np.linspace(-1, 1, given.shape[1] ** 2, dtype=np.float32)
        made.append(onnx.numpy_helper.from_array(mix.reshape(given.shape[1], given.shape[1], 1, 1), "mix"))
        nodes.insert(0, helper.make_node("Conv", ["x", "mix"], ["m"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", *given.shape[1:]))
    graph = helper.make_graph(nodes, "test", [x], [onnx.ValueInfoProto(name="y")], made)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path = directory / "model.onnx"
    inferred = onnx.shape_inference.infer_shapes(whole)
    inferred.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(inferred, path)
    return path


@pytest.mark.parametrize("after_convolution", [False, True], ids=["alone", "after a convolution"])
@pytest.mark.parametrize("case", CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_an_operator_computes_what_onnxruntime_computes(
    case: Case, after_convolution: bool, tmp_path: Path
) -> None:
    if after_convolution and case[1].ndim != 4:
        return  # rows never pass a convolution
    path = write(tmp_path, case, after_convolution=after_convolution)
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": case[1]}
    )
    (found,) = load_tensorflow_engine(path, max_batch=4, threads=1).run((case[1],))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_every_operator_is_compared() -> None:
    assert set(OPERATORS) == {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (("Erf", IMAGES, (), {}, 17), r"operator Erf \(node 'it'\) has no counterpart"),
        (("LRN", IMAGES, (), {"size": 4}, 17), r"LRN \(node 'it'\): an even size \(4\)"),
        (("MaxPool", IMAGES, (), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, 17), "SAME_UPPER"),
        (("Pad", IMAGES, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "reflect"}, 17), "with a constant"),
    ],
)
def test_what_has_no_counterpart_is_named(case: Case, words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=words):
        load_tensorflow_engine(write(tmp_path, case), max_batch=4, threads=1)


def test_one_process_has_one_number_of_threads(write_model: Callable[..., Path]) -> None:
    load_tensorflow_engine(write_model(), threads=1).close()
    with pytest.raises(EngineError, match="another number of threads than 3"):
        load_tensorflow_engine(write_model(), threads=3)


def test_it_says_where_it_runs(write_model: Callable[..., Path]) -> None:
    assert load_tensorflow_engine(write_model()).platform in ("tensorflow_cpu", "tensorflow_gpu")
