"""Lower precision: what is written, what stays in float32, what is refused and why."""

from __future__ import annotations

import sys
import tomllib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.precision.fidelity import fidelity_of
from server.exporting.precision.kinds import Precision, precision_of
from server.exporting.precision.pictures import gather
from server.exporting.preprocessing import Preprocessing
from server.exporting.request import ExportRequest
from server.models.repository import Repository

SIDE = 16


class Silence:
    def step(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    fan_in = np.prod(shape[1:])
    return (np.random.default_rng(seed).standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def network(
    nodes: list[NodeProto], constants: dict[str, np.ndarray], shape: list[object], output: list[object]
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def classifier(batch: object = "N", *, last: str = "Identity") -> ModelProto:
    """Two convolutions, batch normalisation, a classifier of 6 classes; biases everywhere."""
    constants = {
        "w1": weights(8, 3, 3, 3),
        "b1": weights(8, 1, seed=1)[:, 0],
        "scale": np.linspace(0.5, 2, 8, dtype=np.float32),
        "shift": np.zeros(8, np.float32),
        "mean": np.zeros(8, np.float32),
        "variance": np.ones(8, np.float32),
        "w2": weights(12, 8, 3, 3, seed=2),
        "b2": weights(12, 1, seed=3)[:, 0],
        "w3": weights(6, 12, seed=4),
        "b3": weights(6, 1, seed=5)[:, 0],
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], name="classes", transB=1),
        helper.make_node(last, ["logits"], ["output"], name="last"),
    ]
    return network(nodes, constants, [batch, 3, SIDE, SIDE], [batch, 6])


def export(model: ModelProto, tmp_path: Path, **options: object) -> Exported:
    path = tmp_path / "given.onnx"
    onnx.save_model(model, path)
    request = ExportRequest(model=str(path), repository=tmp_path / "models", **options)
    return export_model(request, Silence())


def run(path: Path, given: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": given})[0]


def recorded(exported: Exported) -> dict[str, object]:
    return tomllib.loads((exported.path.parents[1] / "config.toml").read_text())["export"]


def pictures(directory: Path, count: int) -> Path:
    """Pictures that differ: gradients with noise, JPEG and PNG, one in a directory below."""
    rng = np.random.default_rng(0)
    for index in range(count):
        ramp = np.linspace(0, rng.integers(30, 255), 40)[:, None, None] * rng.random((1, 30, 3))
        pixels = np.clip(ramp + rng.normal(0, 10, (40, 30, 3)), 0, 255).astype(np.uint8)
        path = directory / ("below" if index == 0 else "") / f"{index:02}.{'jpg' if index % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return directory


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_clients_see_no_difference_but_the_precision(
    tmp_path: Path, precision: Precision, uint8: bool
) -> None:
    plain = export(classifier(), tmp_path, uint8=uint8, name="plain")
    lower = export(
        classifier(), tmp_path, uint8=uint8, name="lower", precision=precision, least_agreement=0.9
    )
    assert (lower.inputs, lower.outputs) == (plain.inputs, plain.outputs)
    assert plain.precision == precision_of(onnx.load(plain.path)) == "fp32"
    assert lower.precision == precision_of(onnx.load(lower.path)) == precision
    assert plain.rewritten is None
    assert lower.rewritten is not None
    rng = np.random.default_rng(1)
    given = (
        rng.integers(0, 256, (5, SIDE, SIDE, 3), np.uint8) if uint8 else rng.random((5, 3, SIDE, SIDE), "f")
    )
    np.testing.assert_allclose(run(lower.path, given), run(plain.path, given), atol=0.2)
    for count in (1, 3):
        assert run(lower.path, given[:count]).shape == (count, 6)


def test_the_entry_remembers_its_precision_and_how_true_it_is(tmp_path: Path) -> None:
    exported = export(classifier(), tmp_path, precision=Precision.INT8, least_agreement=0.9)
    fidelity = exported.rewritten.fidelity
    record = recorded(exported)
    assert Repository(tmp_path / "models").entry("given").precision == record["precision"] == "int8"
    assert record["agreement"] == round(fidelity.agreement, 4) >= 0.9
    assert record["fidelity"] == str(fidelity)
    assert f"of {fidelity.items})" in str(fidelity)
    assert fidelity.items >= 100
    assert fidelity.largest_difference >= fidelity.mean_difference > 0
    assert record["bytes"] == exported.path.stat().st_size
    assert "chelsea" in record["judged_on"]
    assert "chelsea" not in record["calibrated_on"]


def test_int8_is_laid_out_as_tensorrt_takes_it(tmp_path: Path) -> None:
    """Symmetric, one scale a channel of the weights, biases in float, nothing between Conv and Relu."""
    model = onnx.load(export(classifier(), tmp_path, precision=Precision.INT8, least_agreement=0).path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {out: node for node in model.graph.node for out in node.output}
    quantising = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantising
    for node in quantising:
        assert not constants[node.input[2]].any()
        assert constants[node.input[2]].dtype == np.int8
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            data, weight = makers[node.input[0]], makers[node.input[1]]
            assert data.op_type == weight.op_type == "DequantizeLinear"
            assert constants[weight.input[0]].dtype == np.int8
            assert constants[weight.input[1]].shape == (len(constants[weight.input[0]]),)
            assert constants[node.input[2]].dtype == np.float32
        if node.op_type == "Relu":
            assert makers[node.input[0]].op_type == "Conv"
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def test_softmax_stays_in_float_and_is_named(tmp_path: Path) -> None:
    exported = export(classifier(last="Softmax"), tmp_path, precision=Precision.FP16)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred(exported.path).graph.value_info}
    (softmax,) = [node for node in onnx.load(exported.path).graph.node if node.op_type == "Softmax"]
    assert types[softmax.input[0]] == TensorProto.FLOAT
    assert types["c2"] == TensorProto.FLOAT16
    assert [(node.name, node.operator) for node in exported.rewritten.kept] == [("last", "Softmax")]
    assert recorded(exported)["kept_in_float32"] == "last"


def test_an_output_that_is_also_read_inside_keeps_its_type(tmp_path: Path) -> None:
    """Softmax in float32 makes one output, and a convolution in half precision reads it for another."""
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["features"]),
        helper.make_node("Softmax", ["features"], ["shares"], axis=1),
        helper.make_node("Conv", ["shares", "w2"], ["output"]),
    ]
    model = network(
        nodes, {"w1": weights(5, 3, 1, 1), "w2": weights(2, 5, 1, 1)}, ["N", 3, 9, 9], ["N", 2, 9, 9]
    )
    model.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["N", 5, 9, 9]))
    exported = export(model, tmp_path, precision=Precision.FP16)
    assert exported.outputs == ("output FP32 [batch, 2, 9, 9]", "shares FP32 [batch, 5, 9, 9]")
    inferred(exported.path)


def test_nodes_without_names_are_converted(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node.append(helper.make_node("Conv", ["input", "w1"], ["again"]))
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["N", 8, 14, 14]))
    for node in model.graph.node:
        node.name = ""
    for precision in (Precision.FP16, Precision.INT8):
        exported = export(model, tmp_path, precision=precision, least_agreement=0)
        assert exported.outputs[1] == "again FP32 [batch, 8, 14, 14]"


def inferred(path: Path) -> ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)


def test_squares_that_half_precision_cannot_hold_are_kept_in_float(tmp_path: Path) -> None:
    """Local response normalisation of activations around 500: their squares exceed 65504."""
    nodes = [
        helper.make_node("Mul", ["input", "gain"], ["large"]),
        helper.make_node("LRN", ["large"], ["normal"], size=3, alpha=1e-4, beta=0.75, bias=1.0),
        helper.make_node("Conv", ["normal", "w"], ["output"]),
    ]
    constants = {"gain": np.array(500, np.float32), "w": weights(4, 3, 1, 1)}
    model = network(nodes, constants, ["N", 3, SIDE, SIDE], ["N", 4, SIDE, SIDE])
    fidelity = export(model, tmp_path, precision=Precision.FP16).rewritten.fidelity
    assert not fidelity.classifier
    assert fidelity.agreement > 0.99


def test_values_near_the_end_of_half_precision_stay_in_float(tmp_path: Path) -> None:
    """The weights fit, weight times pixel does not; a CPU computes in float32 and would not show it."""
    nodes = [
        helper.make_node("Relu", ["input"], ["pixels"], name="fits"),
        helper.make_node("Mul", ["pixels", "gain"], ["large"], name="makes"),
        helper.make_node("Div", ["large", "gain"], ["small"], name="reads"),
        helper.make_node("Conv", ["small", "w"], ["output"], name="fits too"),
    ]
    constants = {"gain": np.array(6000, np.float32), "w": weights(4, 3, 1, 1)}
    model = network(nodes, constants, ["N", 3, SIDE, SIDE], ["N", 4, SIDE, SIDE])
    exported = export(model, tmp_path, precision=Precision.FP16, preprocessing=Preprocessing(1.0))
    assert [node.name for node in exported.rewritten.kept] == ["makes", "reads"]
    assert "half precision ends at 65504" in exported.rewritten.kept[0].reason
    types = {v.name: v.type.tensor_type.elem_type for v in inferred(exported.path).graph.value_info}
    assert types["pixels"] == TensorProto.FLOAT16
    nodes = onnx.load(exported.path).graph.node
    (makes,), (reads,) = ([node for node in nodes if node.name == name] for name in ("makes", "reads"))
    assert reads.input[0] == makes.output[0]
    assert types[makes.output[0]] == TensorProto.FLOAT


def fragile() -> ModelProto:
    """A convolution whose input has one channel ten thousand times as large as the others, which decide."""
    spread = np.diag([1e4, 1, 1]).astype(np.float32)[:, :, None, None]
    gathered = np.concatenate([np.diag([1e-4, 1, 1])] * 2).astype(np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["input", "spread"], ["spreaded"], name="spreading"),
        helper.make_node("Conv", ["spreaded", "gathered"], ["features"], name="fragile"),
        *[
            helper.make_node(
                "Conv", [f"features{'' if i == 0 else i}", f"w{i}"], [f"features{i + 1}"], name=f"solid{i}"
            )
            for i in range(6)
        ],
        helper.make_node("GlobalAveragePool", ["features6"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["output"]),
    ]
    constants = {"spread": spread, "gathered": gathered}
    constants |= {f"w{i}": np.eye(6, dtype=np.float32)[:, :, None, None] for i in range(6)}
    return network(nodes, constants, ["N", 3, SIDE, SIDE], ["N", 6])


def test_the_node_that_costs_most_goes_back_to_float(tmp_path: Path) -> None:
    exported = export(fragile(), tmp_path, precision=Precision.INT8, least_agreement=0.5, force=True)
    kept = exported.rewritten.kept
    assert kept[0].name == "fragile"
    assert "moves the answers by" in kept[0].reason
    assert len(kept) <= 2  # a quarter of eight
    plain = {node.name: node for node in onnx.load(exported.path).graph.node}["fragile"]
    assert plain.input[1] == "gathered"


def test_what_is_too_far_from_float32_is_refused_with_figures_and_advice(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as refused:
        export(fragile(), tmp_path, precision=Precision.INT8, least_agreement=1.0)
    told = str(refused.value)
    for part in (
        "top-1 agreement 0.",
        "largest difference",
        "at least 1,",
        "judged on views of",
        "--calibration",
        "--precision fp16",
        "--least-agreement",
        "--force",
    ):
        assert part in told
    assert not list((tmp_path / "models").glob("*"))
    forced = export(fragile(), tmp_path, precision=Precision.INT8, least_agreement=1.0, force=True)
    assert recorded(forced)["agreement"] < 1


def test_a_precision_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    half = export(classifier(), tmp_path, precision=Precision.FP16)
    again = export(onnx.load(half.path), tmp_path, precision=Precision.FP16, name="again")
    assert again.rewritten is None
    assert again.precision == recorded(again)["precision"] == "fp16"
    for wanted in (Precision.INT8, Precision.FP32):
        with pytest.raises(ExportError, match=r"is in fp16, and only float32 graphs are converted; give the"):
            export(onnx.load(half.path), tmp_path, precision=wanted, name="no")


def test_pictures_of_ones_own_calibrate_and_judge(tmp_path: Path) -> None:
    directory = pictures(tmp_path / "mine", 17)
    exported = export(
        classifier(), tmp_path, precision=Precision.INT8, calibration=directory, least_agreement=0.5
    )
    assert exported.rewritten.fidelity.items == 10  # every fourth of 17 pictures, and mirrored
    assert exported.rewritten.judged_on == "5 other pictures in mine, and mirrored"
    assert exported.rewritten.calibrated_on == "12 pictures in mine, and mirrored"


def test_no_picture_both_calibrates_and_judges(tmp_path: Path) -> None:
    gathered = gather((3, SIDE, SIDE), None, pictures(tmp_path, 20))
    calibrating = {view.tobytes() for view in gathered.calibrating}
    assert len(calibrating) == 30
    assert not calibrating & {view.tobytes() for view in gathered.judged}


def test_grey_networks_take_grey_pictures(tmp_path: Path) -> None:
    directory = pictures(tmp_path, 16)
    for source in (directory, None):
        gathered = gather((1, SIDE, 2 * SIDE), None, source)
        assert gathered.calibrating.shape[1:] == gathered.judged.shape[1:] == (SIDE, 2 * SIDE, 1)


def test_directories_that_do_not_serve_are_explained(tmp_path: Path) -> None:
    few = pictures(tmp_path / "few", 3)
    damaged = pictures(tmp_path / "damaged", 16)
    (damaged / "zz.jpg").write_bytes(b"no picture")
    for directory, complaint in (
        (tmp_path / "gone", "is not a directory"),
        (few, "holds 3 JPEG and PNG files; at least 16 are needed"),
        (damaged, r"zz\.jpg: 10 bytes are not an image"),
    ):
        with pytest.raises(ExportError, match=complaint):
            export(classifier(), tmp_path, precision=Precision.INT8, calibration=directory)


def test_without_pictures_int8_says_what_to_do_and_fp16_takes_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ExportError, match=r"--calibration, or install .*boulton\[photos\]"):
        export(classifier(), tmp_path, precision=Precision.INT8)
    half = export(classifier(), tmp_path, precision=Precision.FP16)
    assert half.rewritten.judged_on.startswith("random noise")


def test_networks_that_take_no_pictures(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["input", "w"], ["output"])]
    model = network(nodes, {"w": weights(7, 5)}, ["N", 7], ["N", 5])
    with pytest.raises(ExportError, match=r"given\.onnx takes none; --precision fp16 needs none"):
        export(model, tmp_path, precision=Precision.INT8)
    with pytest.raises(ExportError, match="--calibration goes with networks that take pictures"):
        export(model, tmp_path, precision=Precision.FP16, calibration=tmp_path)
    assert export(model, tmp_path, precision=Precision.FP16).rewritten.fidelity.agreement > 0.9


def test_a_network_with_nothing_to_quantise_is_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["input"], ["output"])]
    model = network(nodes, {}, ["N", 3, SIDE, SIDE], ["N", 3, 1, 1])
    with pytest.raises(ExportError, match="has no Conv, Gemm, MatMul with constant weights"):
        export(model, tmp_path, precision=Precision.INT8)


def test_a_network_of_fixed_batch_is_converted_as_it_is(tmp_path: Path) -> None:
    mixing = classifier(4)
    mixing.graph.node[-1].CopyFrom(helper.make_node("Softmax", ["logits"], ["output"], axis=0))
    for precision in (Precision.FP16, Precision.INT8):
        exported = export(mixing, tmp_path, precision=precision, least_agreement=0)
        assert exported.inputs == (f"input FP32 [4, 3, {SIDE}, {SIDE}]",)
        assert run(exported.path, np.zeros((4, 3, SIDE, SIDE), "f")).shape == (4, 6)


def test_old_opsets_are_raised_where_int8_needs_it(tmp_path: Path) -> None:
    model = classifier()
    model.opset_import[0].version = 11
    del model.graph.node[1]  # its attributes changed since
    model.graph.node[1].input[0] = "c1"
    exported = export(model, tmp_path, precision=Precision.INT8, least_agreement=0)
    assert onnx.load(exported.path).opset_import[0].version >= 13


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"least_agreement": 1.5}, "--least-agreement must be from 0 to 1, got 1.5"),
        ({"least_agreement": float("nan")}, "--least-agreement must be from 0 to 1, got nan"),
        ({"calibration": Path()}, "--calibration goes with --precision int8"),
        ({"calibration": Path(), "precision": Precision.FP32}, "--calibration goes with --precision int8"),
    ],
)
def test_flags_that_mean_nothing_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint):
        ExportRequest("m.onnx", Path("models"), **options)


def test_quantising_leaves_the_import_path_alone(tmp_path: Path) -> None:
    """ONNX Runtime's quantiser adds a directory with an `optimizer.py`, which would be imported for ours."""
    before = list(sys.path)
    export(classifier(), tmp_path, precision=Precision.INT8, least_agreement=0)
    assert sys.path == before


def test_missing_converters_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxconverter_common.float16", None)
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(ExportError, match="pip install onnxconverter-common"):
        export(classifier(), tmp_path, precision=Precision.FP16)
    with pytest.raises(ExportError, match=r"pip install 'boulton\[cpu\]'"):
        export(classifier(), tmp_path, precision=Precision.INT8)


def test_agreement_counts_first_classes_and_differences_count_all() -> None:
    meant = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.0, 4.0]], np.float32)
    got = np.array([[1.0, 0.0], [1.5, 1.0], [3.0, 1.0], [0.0, 3.5]], np.float32)
    fidelity = fidelity_of((got,), (meant,))
    assert (fidelity.agreement, fidelity.items, fidelity.classifier) == (0.75, 4, True)
    assert (fidelity.largest_difference, fidelity.mean_difference) == (1.5, 0.25)
    assert str(fidelity).startswith("top-1 agreement 0.750 (3 of 4), largest difference 1.5, mean 0.25")
    maps = fidelity_of((got[..., None],), (meant[..., None],))
    assert (maps.agreement, maps.classifier) == (1 - 0.25 / 1.25, False)
    with pytest.raises(ExportError, match="infinities"):
        fidelity_of((np.full_like(meant, np.inf),), (meant,))
    with pytest.raises(ExportError, match="shapes"):
        fidelity_of((got[:2],), (meant,))


FACTORY = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 5), torch.nn.Softmax(dim=1),
    )
"""


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_pytorch_models_are_converted(tmp_path: Path, precision: Precision) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'boulton[torch]'")
    (tmp_path / f"factory_{precision}.py").write_text(FACTORY)
    request = ExportRequest(
        f"factory_{precision}:net",
        tmp_path / "models",
        input_shape=(3, SIDE, SIDE),
        uint8=True,
        precision=precision,
        least_agreement=0,
    )
    exported = export_model(request, Silence(), tmp_path)
    assert exported.inputs == (f"input UINT8 [batch, {SIDE}, {SIDE}, 3]",)
    assert exported.outputs == ("output FP32 [batch, 5]",)
    scores = run(exported.path, np.full((2, SIDE, SIDE, 3), 90, np.uint8))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)  # Softmax in float32
    assert exported.precision == precision
