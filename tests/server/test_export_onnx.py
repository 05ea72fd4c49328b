"""Exporting existing ONNX files: batches opened where that is safe, everything odd explained."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.preprocessing import Preprocessing
from server.exporting.request import ExportRequest
from server.exporting.sessions import open_runner, save_model
from server.models.repository import Repository

FLOAT = TensorProto.FLOAT
IMAGE: list[object] = ["N", 3, 4, 4]


class Silence:
    def step(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(
    nodes: list[onnx.NodeProto],
    shape: list[object] | None,
    constants: dict[str, np.ndarray] | None = None,
    output: list[object] | None = None,
    datatype: int = FLOAT,
) -> ModelProto:
    """A graph from `input` to `output`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", datatype, shape)],
        [helper.make_tensor_value_info("output", FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def classifier(batch: object, target: list[int], *, size: object = 8, as_node: bool = False) -> ModelProto:
    """Convolution, Reshape to `target`, Gemm: what exporters of PyTorch used to write."""
    constants = {"conv": weights(4, 3, 3, 3), "gemm": weights(4, 5, seed=1)}
    nodes = [
        helper.make_node("Conv", ["input", "conv"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "target"], ["flat"]),
        helper.make_node("Gemm", ["flat", "gemm"], ["output"]),
    ]
    values = np.array(target, np.int64)
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["target"], value=numpy_helper.from_array(values)))
    else:
        constants["target"] = values
    rows = batch if isinstance(batch, int) else "batch"
    return network(nodes, [batch, 3, size, size], constants, [rows, 5])


def export(model: ModelProto | Path, tmp_path: Path, **options: object) -> Exported:
    path = model
    if isinstance(model, ModelProto):
        path = tmp_path / "given.onnx"
        onnx.save_model(model, path)
    request = ExportRequest(model=str(path), repository=tmp_path / "models", **options)
    return export_model(request, Silence())


def with_bias(value: float) -> ModelProto:
    """Three answers, to one of which `value` is added."""
    bias = np.array([1.0, 2.0, value], np.float32)
    return network(
        [helper.make_node("Add", ["input", "bias"], ["output"])], ["N", 3], {"bias": bias}, ["N", 3]
    )


def run(path: Path, given: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": given})[0]


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize(
    ("batch", "target"), [(1, [1, -1]), (1, [1, 4]), (4, [4, -1]), (1, [-1, 4]), (1, [0, -1])]
)
def test_a_fixed_batch_is_opened_and_computes_the_same(
    tmp_path: Path, batch: int, target: list[int], as_node: bool
) -> None:
    exported = export(classifier(batch, target, as_node=as_node), tmp_path)
    assert exported.inputs == ("input FP32 [batch, 3, 8, 8]",)
    assert exported.outputs == ("output FP32 [batch, 5]",)
    assert f"was made for batches of {batch}" in exported.notes[0]
    images = weights(8, 3, 8, 8, seed=2)
    chunks = [run(tmp_path / "given.onnx", images[i : i + batch]) for i in range(0, 8, batch)]
    for count in (1, 3, 8):
        np.testing.assert_allclose(
            run(exported.path, images[:count]), np.concatenate(chunks)[:count], atol=1e-5
        )


def test_a_graph_that_only_works_with_its_own_shape_is_kept_and_said_so(tmp_path: Path) -> None:
    tile = network(
        [
            helper.make_node("Reshape", ["input", "t"], ["r"]),
            helper.make_node("Softmax", ["r"], ["output"], axis=1),
        ],
        [2, 3, 4, 4],
        {"t": np.array([1, 96], np.int64)},
        [1, 96],
    )
    exported = export(tile, tmp_path)
    assert exported.inputs == ("input FP32 [2, 3, 4, 4]",)
    assert exported.outputs == ("output FP32 [1, 96]",)
    assert "only works with its own shape (first dimension 2)" in exported.notes[0]
    images = weights(2, 3, 4, 4)
    np.testing.assert_array_equal(run(exported.path, images), run(tmp_path / "given.onnx", images))


def test_answers_that_depend_on_batch_mates_keep_the_batch_fixed(tmp_path: Path) -> None:
    """Softmax over the batch: it runs at any size, but would mix up clients."""
    mixing = network(
        [helper.make_node("Softmax", ["input"], ["output"], axis=0)], [1, 3, 4, 4], output=[1, 3, 4, 4]
    )
    exported = export(mixing, tmp_path)
    assert exported.inputs == ("input FP32 [1, 3, 4, 4]",)
    assert "kept" in exported.notes[0]


def test_a_promised_open_batch_that_does_not_work_is_repaired(tmp_path: Path) -> None:
    exported = export(classifier("N", [1, -1]), tmp_path)
    assert exported.inputs == ("input FP32 [batch, 3, 8, 8]",)
    assert run(exported.path, weights(3, 3, 8, 8)).shape == (3, 5)


def test_an_open_batch_is_left_alone(tmp_path: Path) -> None:
    exported = export(classifier("N", [0, -1]), tmp_path)
    assert exported.inputs == ("input FP32 [N, 3, 8, 8]",)
    assert exported.notes == ()
    assert exported.reference_name == "the file given"
    assert exported.parity.largest_difference == 0


def test_undeclared_output_shapes_are_written_down(tmp_path: Path) -> None:
    model = classifier("N", [0, -1])
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    assert export(model, tmp_path).outputs == ("output FP32 [batch, 5]",)


def test_uint8_is_baked_into_foreign_graphs(tmp_path: Path) -> None:
    exported = export(classifier(1, [1, -1]), tmp_path, uint8=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    floats = (pixels.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    expected = np.concatenate([run(tmp_path / "given.onnx", floats[i : i + 1]) for i in (0, 1)])
    np.testing.assert_allclose(run(exported.path, pixels), expected, atol=1e-5)
    assert exported.preprocessing == "(pixel / 255 - 0) / 1"
    image = Repository(tmp_path / "models").entry("given").image
    assert image is not None
    assert (image.height, image.width) == (8, 8)


def test_uint8_is_baked_into_half_precision_graphs(tmp_path: Path) -> None:
    half = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["input"], ["output"])],
        "half",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT16, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, ["N", 3, 1, 1])],
    )
    model = helper.make_model(half, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    exported = export(model, tmp_path, uint8=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = pixels.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(run(exported.path, pixels)[:, :, 0, 0], expected, atol=2e-3)
    assert exported.inputs == ("input UINT8 [N, 8, 8, 3]",)


def test_uint8_reaches_the_branches_of_an_if(tmp_path: Path) -> None:
    """A branch reads the graph's input by name, from outside."""
    out = [helper.make_tensor_value_info("b", FLOAT, None)]
    twice = helper.make_graph([helper.make_node("Add", ["input", "input"], ["b"])], "then", [], out)
    same = helper.make_graph([helper.make_node("Identity", ["input"], ["b"])], "else", [], out)
    model = network(
        [helper.make_node("If", ["yes"], ["output"], then_branch=twice, else_branch=same)],
        ["N", 3, 4, 4],
        {"yes": np.array(True)},
        ["N", 3, 4, 4],
    )
    exported = export(model, tmp_path, uint8=True)
    pixels = np.full((1, 4, 4, 3), 51, np.uint8)
    np.testing.assert_allclose(run(exported.path, pixels), np.full((1, 3, 4, 4), 0.4), atol=1e-6)


def test_pictures_of_any_size_need_an_input_shape(tmp_path: Path) -> None:
    model = classifier("N", [0, -1], size="side")
    with pytest.raises(
        ExportError, match=r"input FP32 \[N, 3, side, side\] cannot be served.*--input-shape C,H,W"
    ):
        export(model, tmp_path)
    assert export(model, tmp_path, input_shape=(3, 12, 10)).inputs == ("input FP32 [N, 3, 12, 10]",)
    with pytest.raises(
        ExportError, match=r"--input-shape 1,12,10 does not fit input FP32 \[N, 3, side, side\]"
    ):
        export(model, tmp_path, input_shape=(1, 12, 10))


def test_external_weights_are_folded_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    onnx.save_model(
        classifier("N", [0, -1]),
        source / "given.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=50,
    )
    exported = export(source / "given.onnx", tmp_path)
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    images = weights(2, 3, 8, 8)
    np.testing.assert_array_equal(run(exported.path, images), run(source / "given.onnx", images))
    (source / "weights.bin").unlink()
    with pytest.raises(ExportError, match=r"weights of .*given.onnx cannot be read"):
        export(source / "given.onnx", tmp_path)


def test_external_weights_from_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 108))
    model = classifier("N", [0, -1])
    conv = model.graph.initializer[0]
    conv.ClearField("raw_data")
    conv.data_location = TensorProto.EXTERNAL
    conv.external_data.add(key="location", value="../secret")
    source = tmp_path / "source"
    source.mkdir()
    (source / "given.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="cannot be read"):
        export(source / "given.onnx", tmp_path)


def test_weights_over_the_limit_go_beside_the_graph(tmp_path: Path) -> None:
    model = classifier("N", [0, -1])
    model.graph.initializer.append(numpy_helper.from_array(weights(64, 64), "unused"))
    assert save_model(model, tmp_path / "in.onnx")
    assert not save_model(model, tmp_path / "out.onnx", inline_limit_bytes=1000)
    assert (tmp_path / "out.onnx.data").exists()
    images = weights(2, 3, 8, 8)
    inside, outside = (open_runner(tmp_path / name)((images,))[0] for name in ("in.onnx", "out.onnx"))
    np.testing.assert_array_equal(inside, outside)
    assert all(tensor.HasField("raw_data") for tensor in model.graph.initializer)  # the original is untouched


def test_several_inputs_are_served_as_they_are(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        "two",
        [helper.make_tensor_value_info(name, FLOAT, [1, 6]) for name in "ab"],
        [helper.make_tensor_value_info("sum", FLOAT, [1, 6])],
    )
    exported = export(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path
    )
    assert exported.inputs == ("a FP32 [batch, 6]", "b FP32 [batch, 6]")
    assert not exported.parity.photographs


def test_files_that_are_no_networks_are_explained(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xfejunk" * 20)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ExportError, match=r"junk.onnx is not an ONNX file"):
        export(tmp_path / "junk.onnx", tmp_path)
    with pytest.raises(ExportError, match=r"empty.onnx"):
        export(tmp_path / "empty.onnx", tmp_path)
    with pytest.raises(ExportError, match=r"gone.onnx cannot be read: No such file"):
        export(tmp_path / "gone.onnx", tmp_path)


def test_a_graph_the_checker_refuses_is_named_by_its_node(tmp_path: Path) -> None:
    broken = network([helper.make_node("Relu", ["nowhere"], ["output"], name="culprit")], IMAGE, output=IMAGE)
    with pytest.raises(ExportError, match=r"ONNX checker refuses .*nowhere"):
        export(broken, tmp_path)


def test_an_operator_that_nothing_runs_is_named(tmp_path: Path) -> None:
    odd = network(
        [helper.make_node("Frobnicate", ["input"], ["output"], domain="my.ops")], IMAGE, output=IMAGE
    )
    odd.opset_import.append(helper.make_opsetid("my.ops", 1))
    with pytest.raises(ExportError, match="Frobnicate"):
        export(odd, tmp_path)


def test_shapes_that_do_not_fit_together_are_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"flat|Gemm|gemm|Reshape"):
        export(classifier(1, [1, 7]), tmp_path)


@pytest.mark.parametrize(
    ("shape", "datatype", "complaint"),
    [
        ([], FLOAT, r"input FP32 \[\] has no dimensions"),
        (None, FLOAT, "declare its shape in the file"),
        (["N", None, 4, 4], FLOAT, r"input FP32 \[N, \?, 4, 4\] cannot be served"),
        (["N", 3], TensorProto.STRING, r"input STRING \[N, 3\] cannot be served"),
        (["N", 3], TensorProto.BFLOAT16, r"input BF16 \[N, 3\] cannot be served"),
    ],
)
def test_inputs_that_cannot_be_served_are_told(
    tmp_path: Path, shape: list[object] | None, datatype: int, complaint: str
) -> None:
    cast = helper.make_node("Cast", ["input"], ["output"], to=FLOAT)
    model = network([cast], shape, output=shape or [], datatype=datatype)
    with pytest.raises(ExportError, match=complaint):
        export(model, tmp_path)


@pytest.mark.parametrize("flag", ["state_dict"])
def test_flags_that_mean_nothing_are_refused(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ExportError, match="--state-dict goes with module:factory"):
        export(classifier("N", [0, -1]), tmp_path, **{flag: tmp_path / "state.pt"})


def test_a_share_of_answers_that_are_nan_is_told(tmp_path: Path) -> None:
    broken = export(with_bias(np.nan), tmp_path)
    assert broken.parity.not_finite == pytest.approx(1 / 3)
    assert "33.33% of the values NaN or infinite" in str(broken.parity)
    sound = export(with_bias(1.0), tmp_path, name="sound")
    assert sound.parity.not_finite == 0.0
    assert "NaN" not in str(sound.parity)


@pytest.mark.parametrize("batch", ["N", 2])
def test_a_graph_that_draws_random_numbers_is_refused(tmp_path: Path, batch: object) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["input"], ["noise"]),
        helper.make_node("Add", ["input", "noise"], ["output"]),
    ]
    with pytest.raises(ExportError, match="not deterministic: it answers the same items differently"):
        export(network(nodes, [batch, 3], output=[batch, 3]), tmp_path)


def test_answers_whose_shape_depends_on_values_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["places"]),
        helper.make_node("Transpose", ["places"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["output"], to=FLOAT),
    ]
    with pytest.raises(ExportError, match="shape depends on the values of the input"):
        export(network(nodes, ["N", 3], output=["K", 2]), tmp_path)


@pytest.mark.parametrize(
    ("node", "datatype", "complaint"),
    [
        (
            ("Cast", {"to": TensorProto.BFLOAT16}),
            TensorProto.BFLOAT16,
            r"output output BF16 \[N, 3\] cannot be",
        ),
        (
            ("Cast", {"to": TensorProto.STRING}),
            TensorProto.STRING,
            r"output output STRING \[N, 3\] cannot be",
        ),
    ],
)
def test_answers_that_no_response_holds_are_told(
    tmp_path: Path, node: tuple[str, dict[str, int]], datatype: int, complaint: str
) -> None:
    operator, attributes = node
    model = network(
        [helper.make_node(operator, ["input"], ["output"], **attributes)], ["N", 3], output=["N", 3]
    )
    model.graph.output[0].type.tensor_type.elem_type = datatype
    with pytest.raises(ExportError, match=complaint):
        export(model, tmp_path)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_batch": 1 << 31}, "--max-batch must be from 1 to 2147483647"),
        ({"max_batch": 0}, "--max-batch must be from 1"),
        ({"resize": 16385, "uint8": True}, "--resize must be from 1 to 16384"),
    ],
)
def test_no_entry_is_written_that_could_not_be_read(
    tmp_path: Path, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ExportError, match=complaint):
        export(classifier("N", [0, 4]), tmp_path, **options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "values", [{"std": (1e-300,)}, {"std": (1e300,)}, {"mean": (1e300,)}, {"scale": 1e-300}, {"scale": 1e300}]
)
def test_preprocessing_that_leaves_float32_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ExportError, match="leave what float32 can hold"):
        Preprocessing(**values)


@pytest.mark.parametrize("undeclared", ["input", "output"])
def test_undeclared_shapes(tmp_path: Path, undeclared: str) -> None:
    model = classifier("N", [0, 4])
    value = model.graph.input[0] if undeclared == "input" else model.graph.output[0]
    value.type.tensor_type.ClearField("shape")
    if undeclared == "input":
        with pytest.raises(
            ExportError, match="input input FP32 of unknown shape: declare its shape in the file"
        ):
            export(model, tmp_path)
    else:
        assert export(model, tmp_path).outputs == ("output FP32 [batch, 5]",)


@pytest.mark.parametrize(
    "shape", [["N", 0, 4], [0, 3, 4], ["N", -1, 4], ["N", 1 << 40, 1 << 20], [1 << 20, 3, 224, 224]]
)
def test_absurd_sizes_are_refused(tmp_path: Path, shape: list[object]) -> None:
    relu = helper.make_node("Relu", ["input"], ["output"])
    with pytest.raises(ExportError, match=r"cannot be served|too large to try"):
        export(network([relu], shape, output=shape), tmp_path)


@pytest.mark.parametrize("batch", ["N", 2])
def test_an_old_file_that_lists_its_weights_as_inputs_takes_pixels_and_any_batch(
    tmp_path: Path, batch: object
) -> None:
    model = classifier(batch, [batch if isinstance(batch, int) else 0, 4])
    model.graph.initializer.append(numpy_helper.from_array(weights(5), "bias"))
    model.graph.node[-1].input.append("bias")  # which Gemm could not do without then
    model.ir_version = 3
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 8))
    for tensor in model.graph.initializer:
        model.graph.input.insert(0, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    exported = export(model, tmp_path, uint8=True)
    (taken,) = exported.inputs
    assert re.fullmatch(r"input UINT8 \[(N|batch), 8, 8, 3\]", taken)
    assert [value.name for value in onnx.load(exported.path).graph.input] == ["input"]


def test_names_of_branches_are_not_taken_again(tmp_path: Path) -> None:
    def branch(operator: str, name: str) -> onnx.GraphProto:
        answer = helper.make_tensor_value_info(name, FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["input"], [name])], operator, [], [answer])

    branches = {
        "then_branch": branch("Neg", "input_normalised"),
        "else_branch": branch("Abs", "input_normalised_0"),
    }
    node = helper.make_node("If", ["chosen"], ["output"], **branches)
    model = network([node], IMAGE, {"chosen": np.array(True)}, IMAGE)
    exported = export(model, tmp_path, uint8=True)
    given = np.full((2, 4, 4, 3), 255, np.uint8)
    assert run(exported.path, given) == pytest.approx(-np.ones((2, 3, 4, 4)))
