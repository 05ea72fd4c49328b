from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from server.engines.engine import TensorSpec
from server.engines.graph_specs import GraphSpecs, read_graph_specs
from server.errors import EngineError


def save(path: Path, shape: list[int | str | None], elem_type: int = TensorProto.UINT8) -> Path:
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["scores"], to=TensorProto.FLOAT)],
        "net",
        [helper.make_tensor_value_info("image", elem_type, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
        [weight],
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_specs_are_read_from_onnx(tmp_path: Path) -> None:
    image, scores = TensorSpec("image", "UINT8", (4, 3)), TensorSpec("scores", "FP32", (4, 3))
    assert read_graph_specs(save(tmp_path / "a.onnx", ["batch", 4, 3])) == GraphSpecs(
        (image,), (scores,), True
    )
    whole = read_graph_specs(save(tmp_path / "b.onnx", [1, 4, 3]))
    assert not whole.batched
    assert whole.inputs[0].shape == (1, 4, 3)


def test_what_cannot_be_served_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="tensor 'image' has the free dimension 'height'"):
        read_graph_specs(save(tmp_path / "c.onnx", ["batch", "height", 3]))
    with pytest.raises(EngineError, match="tensor 'image' has type STRING; allowed: BOOL"):
        read_graph_specs(save(tmp_path / "d.onnx", ["batch", 3], TensorProto.STRING))
    (tmp_path / "e.onnx").write_bytes(b"not onnx at all")
    with pytest.raises(EngineError, match="not a readable ONNX file"):
        read_graph_specs(tmp_path / "e.onnx")
    with pytest.raises(EngineError, match="not a readable ONNX file"):
        read_graph_specs(tmp_path / "absent.onnx")


def test_a_shape_that_follows_from_the_nodes_need_not_be_declared(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", ["batch", 4, 3])
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    specs = read_graph_specs(path)
    assert specs.outputs == (TensorSpec("scores", "FP32", (4, 3)),)
    assert specs.batched


def test_an_unknown_shape_is_not_taken_for_a_scalar(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [])
    assert read_graph_specs(path).inputs == (TensorSpec("image", "UINT8", ()),)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(EngineError, match="the graph does not say what shape 'image' has"):
        read_graph_specs(path)


@pytest.mark.parametrize("shape", [[0, 4, 3], ["batch", 0, 3]])
def test_dimensions_of_nothing_are_refused(tmp_path: Path, shape: list[int | str | None]) -> None:
    with pytest.raises(EngineError, match="has a dimension of 0; all must be at least 1"):
        read_graph_specs(save(tmp_path / "net.onnx", shape))


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    ends = (
        helper.make_tensor_sequence_value_info("images", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("first", TensorProto.FLOAT, ["batch", 3]),
    )
    node = helper.make_node("SequenceAt", ["images", "place"], ["first"])
    place = helper.make_tensor("place", TensorProto.INT64, [], [0])
    graph = helper.make_graph([node], "net", [ends[0]], [ends[1]], [place])
    onnx.save(helper.make_model(graph), str(tmp_path / "net.onnx"))
    with pytest.raises(EngineError, match="tensor 'images' has type sequence; allowed: BOOL"):
        read_graph_specs(tmp_path / "net.onnx")
