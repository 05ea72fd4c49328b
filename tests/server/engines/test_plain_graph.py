"""Graphs of files that engines take but that are in no order, or bring functions along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.plain_graph import load_plain
from server.errors import EngineError


def write(folder: Path, nodes: list[NodeProto], *functions: FunctionProto) -> Path:
    """From `x` to `y`, both FP32 [n, 3], with the weight `w`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.array([1, -2, 3], np.float32), "w")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def scaled() -> FunctionProto:
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    return helper.make_function("own", "Scaled", ["a", "b"], ["d"], nodes, [helper.make_opsetid("", 17)])


def out_of_order() -> list[NodeProto]:
    return [
        helper.make_node("Relu", ["scaled"], ["y"]),
        helper.make_node("Mul", ["moved", "w"], ["scaled"]),
        helper.make_node("Add", ["x", "w"], ["moved"]),
    ]


def test_nodes_come_after_those_that_they_read(tmp_path: Path) -> None:
    found = load_plain(write(tmp_path, out_of_order())).graph.node
    assert [node.op_type for node in found] == ["Add", "Mul", "Relu"]


def test_functions_are_replaced_by_what_they_consist_of(tmp_path: Path) -> None:
    call = helper.make_node("Scaled", ["x", "w"], ["y"], domain="own")
    found = load_plain(write(tmp_path, [call], scaled())).graph.node
    assert [node.op_type for node in found] == ["Mul", "Relu"]


@pytest.mark.parametrize("kind", ["order", "function"])
def test_pytorch_answers_as_onnxruntime_does(tmp_path: Path, kind: str) -> None:
    reason = "PyTorch is not installed: pip install 'boulton[torch]'"
    pytorch = pytest.importorskip("server.engines.pytorch.engine", reason=reason, exc_type=ImportError)
    call = helper.make_node("Scaled", ["x", "w"], ["y"], domain="own")
    path = write(tmp_path, out_of_order()) if kind == "order" else write(tmp_path, [call], scaled())
    given = np.array([[1, -1, 2], [-3, 0.5, 4]], np.float32)
    (meant,) = load_onnxruntime_engine(path).run((given,))
    (got,) = pytorch.load_pytorch_engine(path).run((given,))
    assert np.array_equal(got, meant)


@pytest.mark.parametrize("reads", ["nowhere", "y"])
def test_what_nothing_makes_is_named(tmp_path: Path, reads: str) -> None:
    path = write(tmp_path, [helper.make_node("Add", ["x", reads], ["y"], "sum")])
    with pytest.raises(EngineError, match=f"Add sum reads {reads}, which nothing in the graph makes"):
        load_plain(path)
