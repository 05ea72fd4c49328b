from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_cnn import CHANNELS, SIZE

from bench.layers.cutting import Cutter
from bench.layers.inputs import make_inputs

BATCH = 2


def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


@pytest.fixture
def cutter(network: Path) -> Cutter:
    return Cutter(onnx.load(network), BATCH)


def test_a_part_takes_what_it_reads_and_answers_what_others_read(cutter: Cutter, tmp_path: Path) -> None:
    cutter.cut(["point", "add", "add_relu"], tmp_path / "part.onnx")

    part = onnx.load(tmp_path / "part.onnx").graph
    plane = [BATCH, CHANNELS, SIZE, SIZE]
    assert shapes(part.input) == {"depth_act": plane, "stem_act": plane}
    assert shapes(part.output) == {"sum_act": plane}
    assert [node.name for node in part.node] == ["point", "add", "add_relu"]
    assert [tensor.name for tensor in part.initializer] == ["point.w"]


def test_the_parts_compute_what_the_whole_does(cutter: Cutter, network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    values = make_inputs(model, BATCH)
    expected = onnxruntime.InferenceSession(network).run(["classes"], values)[0]
    parts = (["subtract", "stem", "stem_relu"], ["depth", "depth_relu"], ["point", "add", "add_relu"])

    for number, nodes in enumerate((*parts, ["pool", "flatten", "dense"])):
        path = tmp_path / f"{number}.onnx"
        cutter.cut(nodes, path)
        session = onnxruntime.InferenceSession(path)
        given = {value.name: values[value.name] for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        values.update(zip(names, session.run(names, given), strict=True))

    np.testing.assert_allclose(values["classes"], expected, rtol=1e-4, atol=1e-3)
