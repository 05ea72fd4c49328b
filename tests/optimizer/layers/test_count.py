"""Layers of small graphs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer.layers.count import count_layers, count_layers_of_file
from optimizer.layers.fusion import Kind, kind_of
from optimizer.layers.layer import Layer, Tensor, add_up

ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def graph(
    nodes: list[NodeProto],
    shape: list[int | str],
    weights: dict[str, np.ndarray] | None = None,
    datatype: str = "float32",
) -> ModelProto:
    """Make a model from `x` of `shape` to the last node's first output, whose shape is left open."""
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", ELEMENT[datatype], shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], ELEMENT[datatype], None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def zeros(*shape: int, datatype: str = "float32") -> np.ndarray:
    return np.zeros(shape, datatype)


def only(model: ModelProto, batch: int = 1) -> Layer:
    (layer,) = count_layers(model, batch)
    return layer


def node(operator: str, *weights: str, **attributes: object) -> NodeProto:
    return helper.make_node(operator, ["x", *weights], ["y"], **attributes)


def test_a_convolution_by_hand() -> None:
    weights = {"w": zeros(8, 3, 5, 5), "b": zeros(8)}
    made = graph([node("Conv", "w", "b", strides=[2, 2], pads=[2, 2, 2, 2])], ["batch", 3, 32, 32], weights)
    layer = only(made, batch=4)
    assert layer.outputs[0] == Tensor("y", (4, 8, 16, 16), "float", 32)
    assert layer.inputs[0].shape == (4, 3, 32, 32)
    assert layer.multiply_adds == 4 * 8 * 16 * 16 * 3 * 5 * 5 == 614_400
    assert layer.operations == 2 * 614_400 + 4 * 8 * 16 * 16
    assert layer.parameters == 8 * 3 * 5 * 5 + 8 == 608
    assert (layer.weight_bytes, layer.input_bytes, layer.output_bytes) == (2432, 4 * 12288, 4 * 8192)
    assert layer.traffic_bytes == 2432 + 49152 + 32768 == 84352
    assert layer.intensity == pytest.approx(1_236_992 / 84352)
    assert (layer.kernel, layer.strides, layer.pads, layer.groups) == ((5, 5), (2, 2), (2, 2, 2, 2), 1)


def test_groups_divide_the_work() -> None:
    whole = only(graph([node("Conv", "w")], [1, 6, 10, 10], {"w": zeros(6, 6, 3, 3)}))
    halves = only(graph([node("Conv", "w", group=2)], [1, 6, 10, 10], {"w": zeros(6, 3, 3, 3)}))
    depthwise = only(graph([node("Conv", "w", group=6)], [1, 6, 10, 10], {"w": zeros(6, 1, 3, 3)}))
    assert whole.multiply_adds == 8 * 8 * 6 * 6 * 9
    assert (halves.multiply_adds, depthwise.multiply_adds) == (whole.multiply_adds // 2, 8 * 8 * 6 * 9)
    assert (halves.parameters, depthwise.parameters) == (162, 54)
    assert depthwise.groups == 6
    assert depthwise.operations == 2 * depthwise.multiply_adds  # no bias


def test_a_transposed_convolution_by_hand() -> None:
    layer = only(graph([node("ConvTranspose", "w", strides=[2, 2])], [1, 4, 5, 5], {"w": zeros(4, 7, 2, 2)}))
    assert layer.outputs[0].shape == (1, 7, 10, 10)
    assert layer.multiply_adds == 4 * 5 * 5 * 7 * 2 * 2


@pytest.mark.parametrize(("transposed", "shape"), [(0, (20, 10)), (1, (10, 20))])
def test_a_fully_connected_layer_by_hand(transposed: int, shape: tuple[int, int]) -> None:
    weights = {"w": zeros(*shape), "b": zeros(10)}
    layer = only(graph([node("Gemm", "w", "b", transB=transposed)], ["n", 20], weights), batch=3)
    assert layer.multiply_adds == 3 * 20 * 10
    assert layer.operations == 2 * 600 + 30
    assert layer.parameters == 210


def test_a_gemm_whose_first_side_is_transposed() -> None:
    layer = only(graph([node("Gemm", "w", transA=1)], [6, 4], {"w": zeros(6, 5)}), batch=6)
    assert layer.outputs[0].shape == (4, 5)
    assert layer.multiply_adds == 4 * 5 * 6


def test_a_matrix_product_by_hand() -> None:
    layer = only(graph([node("MatMul", "w")], ["n", 7, 20], {"w": zeros(20, 10)}), batch=2)
    assert (layer.multiply_adds, layer.operations, layer.parameters) == (2 * 7 * 20 * 10, 5600, 200)


@pytest.mark.parametrize(
    ("made", "per_image"),
    [
        (node("Relu"), 6 * 8 * 8),
        (node("Softmax", axis=1), 5 * 6 * 8 * 8),
        (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2]), 6 * 3 * 3 * 9),
        (node("AveragePool", kernel_shape=[2, 4]), 6 * 7 * 5 * 8),
        (node("GlobalAveragePool"), 6 * 8 * 8),
        (node("LRN", size=5), 6 * 8 * 8 * 9),
        (node("Transpose", perm=[0, 2, 3, 1]), 0),
        (helper.make_node("Sum", ["x", "x", "x"], ["y"]), 2 * 6 * 8 * 8),
        (helper.make_node("Mul", ["x", "x"], ["y"]), 6 * 8 * 8),
    ],
    ids=lambda value: value.op_type if isinstance(value, NodeProto) else "",
)
def test_other_operators_by_hand(made: NodeProto, per_image: int) -> None:
    layer = only(graph([made], ["batch", 6, 8, 8]), batch=2)
    assert layer.operations == 2 * per_image
    assert (layer.multiply_adds, layer.parameters) == (0, 0)
    assert layer.input_bytes == 2 * 6 * 8 * 8 * 4  # once, also where the node reads it twice


def test_a_batch_normalisation_holds_four_numbers_a_channel() -> None:
    weights = {name: zeros(6) for name in ("scale", "shift", "mean", "variance")}
    layer = only(graph([node("BatchNormalization", *weights)], ["n", 6, 4, 4], weights))
    assert (layer.parameters, layer.operations) == (24, 2 * 6 * 16)


def test_another_shape_moves_no_bytes() -> None:
    layer = only(graph([node("Flatten")], ["batch", 3, 4, 4]), batch=2)
    assert layer.outputs[0].shape == (2, 48)
    assert (layer.operations, layer.traffic_bytes, layer.intensity) == (0, 0, None)


def test_an_unknown_operator_is_named_not_guessed() -> None:
    layers = count_layers(graph([node("Hardmax")], ["batch", 6]))
    assert layers[0].operations is None
    assert layers[0].intensity is None
    assert layers[0].traffic_bytes == 2 * 6 * 4
    assert add_up(layers).unknown == ("Hardmax",)


def test_half_precision_halves_the_bytes() -> None:
    def conv(datatype: str) -> Layer:
        weights = {"w": zeros(4, 3, 3, 3, datatype=datatype)}
        return only(graph([node("Conv", "w")], ["n", 3, 9, 9], weights, datatype), batch=2)

    half, single = conv("float16"), conv("float32")
    assert 2 * half.traffic_bytes == single.traffic_bytes
    assert half.operations == single.operations
    assert half.outputs[0].datatype == "float16"


def test_quantised_weights_and_inputs_count_as_the_bytes_they_are() -> None:
    weights = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "wq": zeros(4, 3, 3, 3, datatype="int8"),
        "bq": zeros(4, datatype="int32"),
        "bias_scale": np.float32(0.01),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "scale", "zero"], ["wd"]),
        helper.make_node("DequantizeLinear", ["bq", "bias_scale"], ["bd"]),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["y"]),
    ]
    quantise, conv = count_layers(graph(nodes, ["n", 3, 5, 5], weights))
    assert (quantise.operator, conv.operator) == ("QuantizeLinear", "Conv")
    assert (quantise.input_bytes, quantise.output_bytes) == (300, 75)
    assert (conv.weight_bytes, conv.input_bytes) == (4 * 27 + 4 * 4, 75)
    assert conv.parameters == 4 * 27 + 4
    assert conv.multiply_adds == 4 * 9 * 27


def test_constants_of_constants_are_no_layers() -> None:
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[0, -1]),
        helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    reshape, product = count_layers(
        graph(nodes, ["n", 3, 4], {"w16": zeros(12, 5, datatype="float16")}), batch=7
    )
    assert reshape.outputs[0].shape == (7, 12)
    assert (product.multiply_adds, product.weight_bytes) == (7 * 60, 120)


def test_settings_of_an_operator_are_no_parameters() -> None:
    weights = {"low": np.float32(0), "high": np.float32(6)}
    assert only(graph([node("Clip", "low", "high")], ["n", 8], weights)).parameters == 0


def test_totals_count_a_shared_weight_once() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    layers = count_layers(graph(nodes, ["n", 9], {"w": zeros(9, 9)}), batch=2)
    totals = add_up(layers)
    assert [layer.parameters for layer in layers] == [81, 0, 81]
    assert (totals.parameters, totals.weight_bytes) == (81, 324)
    assert totals.multiply_adds == 2 * 2 * 81
    assert totals.operations == 2 * totals.multiply_adds + 2 * 9
    assert totals.activation_bytes == 3 * 2 * (2 * 9 * 4)
    assert totals.unknown == ()


def test_layers_are_named_by_node_or_by_output() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="first"), helper.make_node("Relu", ["a"], ["y"])]
    assert [layer.name for layer in count_layers(graph(nodes, ["n", 2]))] == ["first", "y"]


def test_four_bit_numbers_are_packed() -> None:
    assert Tensor("w", (3, 5), "int4", 4).size_bytes == 8
    assert Tensor("scalar", (), "float", 32).size_bytes == 4


def test_a_file_is_counted_without_its_external_weights(tmp_path: Path) -> None:
    made = graph([node("MatMul", "w")], ["n", 200], {"w": np.ones((200, 50), np.float32)})
    path = tmp_path / "model.onnx"
    onnx.save_model(made, path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    (layer,) = count_layers_of_file(path, batch=3)
    assert (layer.parameters, layer.multiply_adds) == (10_000, 30_000)


def test_the_model_given_is_left_as_it_was() -> None:
    made = graph([node("MatMul", "w")], ["n", 20], {"w": zeros(20, 10)})
    before = made.SerializeToString(deterministic=True)
    count_layers(made, batch=5)
    assert made.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("shape", "batch", "complaint"),
    [
        (["n", 20], 0, "the batch must be 1 or more, got 0"),
        ([4, 20], 2, "input x is fixed to batches of 4, so it cannot be counted at 2"),
        (["n", "side"], 1, "the shape of input x cannot be known"),
        (["n", 30], 1, "the shapes of the graph do not fit together at batch 1"),
    ],
)
def test_what_cannot_be_counted_is_said(shape: list[int | str], batch: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        count_layers(graph([node("MatMul", "w")], shape, {"w": zeros(20, 10)}), batch)


def with_foreign(operator: str, *weights: str, stated: list[int | str] | None = None) -> ModelProto:
    """Make a model with an operator of somebody's before a rectifier; `stated`: its shape, if told."""
    nodes = [
        helper.make_node(operator, ["x", *weights], ["between"], domain="org.example", kernel_shape=7),
        helper.make_node("Relu", ["between"], ["y"]),
    ]
    made = graph(nodes, ["n", 6, 9, 9], {"w": zeros(6, 6, 3, 3), "axes": np.zeros(2, np.int64)})
    made.opset_import.append(helper.make_opsetid("org.example", 1))
    if stated is not None:
        made.graph.value_info.append(helper.make_tensor_value_info("between", TensorProto.FLOAT, stated))
    return made


def answering_whole_numbers(operator: str, shape: list[int | str]) -> ModelProto:
    made = graph([node(operator)], shape)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return made


def test_an_operator_that_nobody_knows_is_counted_by_what_the_file_states() -> None:
    foreign, relu = count_layers(with_foreign("Warp", "w", "axes", stated=["n", 6, 9, 9]), 5)
    assert (foreign.operator, foreign.operations) == ("org.example.Warp", None)
    assert [weight.name for weight in foreign.weights] == ["w"]
    assert foreign.traffic_bytes == 4 * (6 * 6 * 9 + 2 * 5 * 6 * 81)
    assert relu.operations == 5 * 6 * 81


def test_an_operator_that_nobody_knows_is_not_taken_for_one_of_the_same_name() -> None:
    foreign, _ = count_layers(with_foreign("Conv", stated=["n", 6, 9, 9]))
    assert (foreign.operator, foreign.operations, foreign.kernel) == ("org.example.Conv", None, ())


def test_whose_shape_is_not_known_is_said() -> None:
    for stated in (None, ["n", "somewhat", 9, 9]):
        with pytest.raises(
            ValueError, match=r"the shape of between .* Warp of org.example, .* none of ONNX's"
        ):
            count_layers(with_foreign("Warp", stated=stated))
    with pytest.raises(ValueError, match="Add reads nothing_of_the_kind, which nothing before it"):
        count_layers(graph([node("Add", "nothing_of_the_kind")], ["n", 6]))
    with pytest.raises(ValueError, match=r"the shape of y cannot be known .* NonZero"):
        count_layers(answering_whole_numbers("NonZero", ["n", 6]))


def test_constants_of_constants_are_no_layers_whatever_computes_them() -> None:
    nodes = [
        helper.make_node("Mul", ["w", "gain"], ["scaled"]),
        helper.make_node("Conv", ["x", "scaled"], ["y"]),
    ]
    (layer,) = count_layers(graph(nodes, ["n", 3, 8, 8], {"w": zeros(4, 3, 3, 3), "gain": zeros(4, 1, 1, 1)}))
    assert (layer.operator, layer.parameters, layer.weight_bytes) == ("Conv", 108, 432)
    assert layer.input_bytes == 4 * 3 * 64


def test_the_shape_of_a_tensor_is_told_without_reading_it() -> None:
    layer = only(answering_whole_numbers("Shape", ["n", 64, 100, 100]))
    assert (layer.input_bytes, layer.output_bytes) == (0, 4 * 8)


@pytest.mark.parametrize(("told", "pads"), [("SAME_UPPER", (0, 0, 1, 1)), ("SAME_LOWER", (1, 1, 0, 0))])
def test_padding_that_keeps_the_size_is_reckoned(told: str, pads: tuple[int, ...]) -> None:
    convolution = only(
        graph([node("Conv", "w", auto_pad=told, strides=[2, 2])], [1, 3, 32, 32], {"w": zeros(4, 3, 3, 3)})
    )
    assert (convolution.pads, convolution.outputs[0].shape) == (pads, (1, 4, 16, 16))
    wide = only(
        graph([node("Conv", "w", auto_pad=told, dilations=[3, 3])], [1, 3, 32, 32], {"w": zeros(4, 3, 3, 3)})
    )
    assert wide.pads == (3, 3, 3, 3)


def test_weights_need_not_be_inputs_in_files_of_old() -> None:
    made = graph([node("Conv", "w")], ["n", 3, 8, 8], {"w": zeros(4, 3, 3, 3)})
    made.ir_version = 3
    assert only(made).outputs[0].shape == (1, 4, 6, 6)


@pytest.mark.parametrize(("mode", "each"), [("nearest", 0), ("linear", 2 * 4 - 1), ("cubic", 2 * 16 - 1)])
def test_resizing_weighs_neighbours(mode: str, each: int) -> None:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    made = graph([helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode)], [1, 3, 4, 4], scales)
    layer = only(made)
    assert (layer.operations, layer.parameters) == (each * 3 * 64, 0)


def function(name: str, *nodes: NodeProto, attributes: tuple[str, ...] = ()) -> FunctionProto:
    """From `a` and `w` to `y`."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a", "w"], ["y"], list(nodes), imports, list(attributes))


def with_functions(model: ModelProto, *functions: FunctionProto) -> ModelProto:
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.extend(functions)
    return model


def test_what_functions_consist_of_is_counted_wherever_they_are_called() -> None:
    block = function(
        "Block",
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    )
    twice = function("Twice", helper.make_node("Block", ["a", "w"], ["y"], domain="own"))
    nodes = [
        helper.make_node("Block", ["x", "w1"], ["between"], domain="own"),
        helper.make_node("Twice", ["between", "w2"], ["y"], domain="own"),
    ]
    weights = {"w1": zeros(4, 3, 3, 3), "w2": zeros(8, 4, 3, 3)}
    made = with_functions(graph(nodes, ["batch", 3, 6, 6], weights), block, twice)
    layers = count_layers(made, 2)
    assert [layer.operator for layer in layers] == ["Conv", "Relu", "Conv", "Relu"]
    assert [layer.multiply_adds for layer in layers] == [2 * 36 * 4 * 27, 0, 2 * 36 * 8 * 36, 0]
    assert add_up(layers).parameters == 4 * 27 + 8 * 36
    assert add_up(layers).unknown == ()


def test_a_function_that_calls_itself_is_refused() -> None:
    endless = function("Endless", helper.make_node("Endless", ["a", "w"], ["y"], domain="own"))
    node = helper.make_node("Endless", ["x", "w"], ["y"], domain="own")
    made = with_functions(graph([node], ["batch", 3], {"w": zeros(3)}), endless)
    with pytest.raises(ValueError, match="functions of the file cannot be resolved"):
        count_layers(made)


def test_bodies_are_named_since_how_often_they_run_is_not_known() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["still"]),
            helper.make_node("Conv", ["given", "w"], ["convolved"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["convolved", "stem"], ["taken"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("given", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("taken", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(zeros(3, 3, 3, 3), "w")],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["stem"]),
        helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
    ]
    made = graph(nodes, ["batch", 3, 6, 6], {"turns": np.array(5)})
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 6, 6]))
    _, loop = count_layers(made)
    assert loop.operator == "Loop(Add, Conv, Identity: not counted)"
    assert loop.operations is None
    assert kind_of(loop) is Kind.UNKNOWN
    assert [tensor.name for tensor in loop.inputs] == ["x", "stem"]
    assert loop.parameters == 3 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("mode", "kind"), [("nearest", Kind.MOVE), ("linear", Kind.UNKNOWN), ("cubic", Kind.UNKNOWN)]
)
def test_a_resize_is_a_move_only_where_it_copies(mode: str, kind: Kind) -> None:
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode)]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    assert kind_of(only(graph(nodes, ["batch", 3, 6, 6], scales))) is kind


def test_minus_one_is_an_open_dimension() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    assert only(graph([relu], [-1, 3, 4]), batch=5).outputs[0].shape == (5, 3, 4)
    with pytest.raises(ValueError, match="the shape of input x cannot be known"):
        count_layers(graph([relu], ["batch", 3, -1]))


def test_nodes_out_of_order_are_named() -> None:
    nodes = [helper.make_node("Relu", ["later"], ["y"], "early"), helper.make_node("Neg", ["x"], ["later"])]
    with pytest.raises(
        ValueError, match="Relu early reads later, which nothing before it in the graph makes"
    ):
        count_layers(graph(nodes, ["batch", 3]))


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match="it is an empty file"):
        count_layers_of_file(tmp_path / "empty.onnx")


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (node("Conv", "w", group=0), "Conv with 0 groups of 3 channels does not fit an input of 3"),
        (node("Conv", "w", group=7), "Conv with 7 groups of 3 channels does not fit an input of 3"),
        (node("LRN"), "LRN lacks its attribute size"),
        (helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="best"), "Resize has the mode 'best'"),
    ],
)
def test_what_makes_no_sense_is_refused(made: NodeProto, complaint: str) -> None:
    weights = {"w": zeros(4, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = graph([made], ["batch", 3, 8, 8], weights)
    with pytest.raises(ValueError, match=complaint):
        count_layers(model)


def test_a_node_whose_answer_nobody_can_read_is_no_layer() -> None:
    nodes = [helper.make_node("Relu", ["x"], [""]), helper.make_node("Neg", ["x"], ["y"])]
    assert only(graph(nodes, ["batch", 3])).operator == "Neg"
