"""Which nodes become one step, and what a predictor sees of it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimizer.layers.costs import pixels_inside
from optimizer.layers.count import count_layers
from optimizer.layers.features import NAMES, features, join
from optimizer.layers.fusion import Kind, Step, fuse
from optimizer.layers.network import predict_network
from optimizer.layers.neuralpower import rows_of
from optimizer.layers.saved import load_predictor


def network(
    *nodes: tuple[str, list[str], str, dict[str, object]],
    shape: tuple[int, ...] = (8, 16, 16),
    opset: int = 17,
    **weights: tuple[int, ...],
) -> ModelProto:
    made = [helper.make_node(kind, reads, [out], name=out, **more) for kind, reads, out, more in nodes]
    graph = helper.make_graph(
        made,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(s, np.float32), name) for name, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


PADDED = {"pads": [1] * 4, "kernel_shape": [3, 3]}
W = (8, 8, 3, 3)


def steps(model: ModelProto, batch: int = 1) -> tuple[Step, ...]:
    return fuse(count_layers(model, batch))


def test_an_activation_disappears_into_the_convolution_before_it() -> None:
    (step,) = steps(network(("Conv", ["x", "w"], "c", PADDED), ("Relu", ["c"], "y", {}), w=W))
    assert (step.kind, step.operators, step.tensors) == (Kind.CONVOLUTION, "Conv+Relu", ("c", "y"))


def test_what_somebody_else_reads_too_must_be_written() -> None:
    made = network(
        ("Conv", ["x", "w"], "c", PADDED), ("Relu", ["c"], "r", {}), ("Mul", ["c", "r"], "y", {}), w=W
    )
    assert [step.operators for step in steps(made)] == ["Conv", "Relu", "Mul"]


def test_a_sum_goes_to_the_convolution_that_ends_last() -> None:
    made = network(
        ("Conv", ["x", "w"], "a", PADDED),
        ("Conv", ["x", "v"], "b", PADDED),
        ("Add", ["a", "b"], "s", {}),
        ("Relu", ["s"], "y", {}),
        w=W,
        v=W,
    )
    assert [(step.name, step.operators) for step in steps(made)] == [("a", "Conv"), ("b", "Conv+Add+Relu")]


def test_a_sum_with_a_vector_is_no_branch() -> None:
    made = network(("Conv", ["x", "w"], "c", PADDED), ("Add", ["c", "v"], "y", {}), w=W, v=(8, 1, 1))
    assert [step.operators for step in steps(made)] == ["Conv", "Add"]


def test_views_are_no_steps() -> None:
    made = network(("Flatten", ["x"], "f", {}), ("Gemm", ["f", "w"], "y", {"transB": 1}), w=(5, 2048))
    assert [step.kind for step in steps(made)] == [Kind.FULLY_CONNECTED]


def test_an_unknown_operator_is_a_step_of_its_own() -> None:
    made = network(("Hardmax", ["x"], "y", {}))
    (step,) = steps(made)
    assert (step.kind, step.operators) == (Kind.UNKNOWN, "Hardmax")


@pytest.mark.parametrize(
    ("operator", "each"),
    [
        ("InstanceNormalization", 7),
        ("GroupNormalization", 7),
        ("LayerNormalization", 7),
        ("LpPool", 2 * 4 + 1),
    ],
)
def test_what_is_not_unknown_has_its_arithmetic_counted(operator: str, each: int) -> None:
    more: dict[str, dict[str, object]] = {
        "GroupNormalization": {"num_groups": 2},
        "LpPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    }
    reads = ["x", "s", "b"] if operator != "LpPool" else ["x"]
    size = (16,) if operator == "LayerNormalization" else (8,)
    (step,) = steps(network((operator, reads, "y", more.get(operator, {})), opset=21, s=size, b=size))
    assert step.kind is not Kind.UNKNOWN
    assert step.leader.operations == each * step.leader.outputs[0].elements


def test_a_step_of_unknown_arithmetic_is_unknown_whatever_it_resembles() -> None:
    (step,) = steps(network(("GlobalLpPool", ["x"], "y", {})))
    assert step.kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("shape", "window", "sizes"),
    [((100,), (3,), (3, 1)), ((12, 12), (3, 5), (3, 5)), ((6, 12, 12), (2, 3, 5), (2, 15))],
)
def test_windows_of_any_dimensions_keep_their_number_of_pixels(
    shape: tuple[int, ...], window: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    model = network(("Conv", ["x", "w"], "y", {}), shape=(8, *shape), w=(4, 8, *window))
    table = features(steps(model))
    assert (*table.column("kernel_height"), *table.column("kernel_width")) == sizes
    pixels = table.column("out_height") * table.column("out_width") * table.column("out_channels")
    assert table.column("multiply_adds") == pixels * 8 * np.prod(window)


def test_windows_over_a_row_see_each_of_its_pixels_however_it_is_padded() -> None:
    around = {"kernel_shape": [3], "pads": [1, 1]}
    table = features(steps(network(("MaxPool", ["x"], "y", around), shape=(8, 10))))
    assert pixels_inside(table) == 3 * 10 - 2


def test_what_is_empty_can_be_predicted() -> None:
    nothing = {"starts": 0, "ends": 0, "axes": 2}
    model = network(
        ("Slice", ["x", *nothing], "e", {}), ("Conv", ["e", "w"], "y", {"pads": [1] * 4}), w=(4, 8, 1, 1)
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([at], np.int64), name) for name, at in nothing.items()
    )
    found = predict_network(load_predictor("t4"), steps(model), (1, 8), (1000.0,))
    assert np.isfinite(found.run_s).all()
    assert (found.seconds > 0.0).all()


def test_features_of_a_grouped_fused_convolution_by_hand() -> None:
    sizes = {**PADDED, "group": 4, "strides": [2, 2]}
    made = network(("Conv", ["x", "w", "b"], "c", sizes), ("Relu", ["c"], "y", {}), w=(12, 2, 3, 3), b=(12,))
    table = features(steps(made, batch=5))
    row = dict(zip(NAMES, table.values[0].tolist(), strict=True))
    assert (row["batch"], row["in_channels"], row["out_channels"], row["groups"]) == (5, 8, 12, 4)
    assert (row["in_height"], row["out_width"], row["kernel_width"], row["stride"]) == (16, 8, 3, 2)
    assert (row["activated"], row["summed"], row["bits"]) == (1, 0, 32)
    assert row["multiply_adds"] == 5 * 12 * 8 * 8 * 2 * 3 * 3
    assert row["operations"] == 2 * row["multiply_adds"] + 2 * 5 * 12 * 8 * 8  # bias, activation
    assert row["input_bytes"] == 5 * 8 * 16 * 16 * 4
    assert (row["weight_bytes"], row["output_bytes"]) == (4 * (12 * 2 * 9 + 12), 4 * 5 * 12 * 8 * 8)


def test_a_branch_that_is_added_is_read() -> None:
    made = network(("Conv", ["x", "w"], "c", PADDED), ("Add", ["c", "x"], "y", {}), w=W)
    (read,) = features(steps(made)).column("input_bytes")
    assert read == 2 * 8 * 16 * 16 * 4


@pytest.mark.parametrize("batch", [1, 7])
def test_a_table_made_at_batch_1_serves_any_batch(batch: int) -> None:
    made = network(
        ("Conv", ["x", "w"], "c", PADDED),
        ("Relu", ["c"], "r", {}),
        ("MaxPool", ["r"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Concat", ["p", "p"], "d", {"axis": 1}),
        ("ReduceMean", ["d"], "m", {"axes": [-1, -2], "keepdims": 0}),
        ("Gemm", ["m", "v"], "y", {"transB": 1}),
        w=W,
        v=(10, 16),
    )
    grown = features(steps(made)).at([batch])
    assert np.array_equal(grown.values, features(steps(made, batch)).values)


def test_batches_follow_one_another() -> None:
    table = features(steps(network(("Conv", ["x", "w"], "c", PADDED), w=W)))
    assert table.at([1, 3]).column("batch").tolist() == [1, 3]
    assert join([table, table]).names == ("c", "c")


def test_poolings_are_told_apart_and_know_what_their_network_moves() -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    table = features(
        steps(
            network(
                ("MaxPool", ["x"], "m", window),
                ("AveragePool", ["m"], "a", window),
                ("GlobalAveragePool", ["a"], "g", {}),
            ),
            batch=2,
        )
    )
    assert table.kinds == (Kind.POOLING, Kind.POOLING, Kind.WHOLE_POOLING)
    assert table.column("maximum").tolist() == [1.0, 0.0, 0.0]
    assert table.column("kernel_width").tolist() == [2.0, 2.0, 4.0]
    moved = 4 * 2 * 8 * (256 + 64 + 64 + 16 + 16 + 1)
    assert table.column("network_bytes").tolist() == [moved] * 3
    assert rows_of(table, Kind.POOLING).all()
