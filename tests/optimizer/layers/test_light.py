"""Reading graphs without their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.layers.count import count_layers, count_layers_of_file
from optimizer.layers.light import read_light


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((300, 200), np.float32), "w"),
        numpy_helper.from_array(np.array([-1, 4, 50]), "shape"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        helper.make_node("Reshape", ["y", "shape"], ["z"], name="reshape"),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 300]),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_only_the_numbers_of_weights_are_left_out(path: Path) -> None:
    light, whole = read_light(path), onnx.load(path)
    assert light.ByteSize() < 1000 < whole.ByteSize()
    assert not light.graph.initializer[0].raw_data
    whole.graph.initializer[0].ClearField("raw_data")
    assert light == whole


def test_the_layers_are_the_same(path: Path) -> None:
    assert count_layers_of_file(path, 6) == count_layers(onnx.load(path), 6)


@pytest.mark.parametrize("kept", [0, 1, 30, 240_000, -3])
def test_a_file_that_was_cut_short(kept: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"empty file|in the middle of a field|longer than what"):
        read_light(path)


def test_a_file_that_is_something_else(path: Path) -> None:
    path.write_bytes(b"\x0f no protocol buffer")
    with pytest.raises(ValueError, match="byte 0 is not the beginning of a field"):
        read_light(path)
