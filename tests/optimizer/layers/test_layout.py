"""Which steps work on blocks of channels, what is turned between layouts, and what caches may still hold."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from made_network import Node, network, steps

from bench.predict.measuring import _answers
from bench.predict.network_builder import fill
from bench.predict.small_networks import small_network
from optimizer.layers.features import features
from optimizer.layers.fusion import Step
from optimizer.layers.layout import placings
from optimizer.layers.reuse import moved_since

SINGLE = {"kernel_shape": [1, 1]}
MEAN = {"kernel_shape": [3, 3], "pads": [1] * 4}


def mean_behind_convolution(channels: int, opset: int = 20) -> tuple[Step, ...]:
    conv = ("Conv", ["x", "w"], "c", SINGLE)
    pool = ("AveragePool", ["c"], "p", MEAN)
    return steps(network(channels, conv, pool, opset=opset, w=(channels, channels, 1, 1)))


@pytest.mark.parametrize(
    ("channels", "opset", "blocked", "scalar"),
    [
        (48, 20, (True, True), False),
        (44, 20, (True, False), True),
        (44, 18, (True, False), False),
        (22, 20, (False, False), True),
    ],
)
def test_channels_and_versions_decide_how_a_mean_is_computed(
    channels: int, opset: int, blocked: tuple[bool, bool], scalar: bool
) -> None:
    conv, pool = placings(mean_behind_convolution(channels, opset))
    assert (conv.blocked, pool.blocked) == blocked
    assert (conv.scalar, pool.scalar) == (False, scalar)


def test_a_tensor_is_turned_once_where_two_layouts_meet() -> None:
    numbers = 4 * 8 * 8
    conv, pool = placings(mean_behind_convolution(44))
    assert (conv.turned_bytes, pool.turned_bytes) == (44 * numbers, 44 * numbers)
    conv, pool = placings(mean_behind_convolution(48))
    assert (conv.turned_bytes, pool.turned_bytes) == (48 * numbers, 48 * numbers)  # to be answered with
    assert [one.turned_bytes for one in placings(mean_behind_convolution(22))] == [0, 0]


def test_a_sum_with_a_plain_branch_is_plain() -> None:
    conv = ("Conv", ["x", "w"], "c", SINGLE)
    added = ("Add", ["c", "x"], "s", {})
    pool = ("Relu", ["s"], "r", {})
    last = ("Mul", ["r", "r"], "y", {})
    first, second = placings(steps(network(16, conv, added, pool, last, w=(16, 16, 1, 1))))
    assert first.blocked
    assert not second.blocked
    assert first.turned_bytes == 2 * 16 * 8 * 8 * 4  # what it is given, and what it answers before the sum


def test_turned_and_moved_bytes_grow_with_the_batch() -> None:
    table = features(mean_behind_convolution(44))
    larger = table.at((4,))
    for name in ("turned_bytes", "since_bytes"):
        assert larger.column(name).tolist() == (4 * table.column(name)).tolist()
    for name in ("blocked", "scalar", "since_weight_bytes"):
        assert larger.column(name).tolist() == table.column(name).tolist()


def test_what_moved_since_inputs_were_touched() -> None:
    halves: tuple[Node, ...] = (("Relu", ["x"], "a", {}), ("Neg", ["a"], "b", {}), ("Exp", ["b"], "c", {}))
    sums: tuple[Node, ...] = (("Mul", ["a", "c"], "y", {}),)
    found = moved_since(steps(network(8, *halves, *sums)), (1, 10, 100, 1000))
    # the input: a whole run ago; `a` was read two steps ago, `c` just made
    assert found == (1111.0, 1.0, 10.0, (110.0 + 100.0) / 2.0)


@pytest.mark.parametrize("seed", [2, 7, 10, 12, 16, 18, 24, 27, 40])
def test_the_engine_lays_its_graph_out_by_the_same_rules(seed: int, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the engine whose rules they are")
    _, model = small_network(seed)
    fill(model, seed)
    onnx.save(model, tmp_path / "m.onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    runtime.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    executed = onnx.load(tmp_path / "executed.onnx")
    if not any(node.domain == "com.microsoft.nchwc" for node in executed.graph.node):
        pytest.skip("nothing is laid out in blocks: not by this processor, or not of this network")
    ours = steps(model)
    place_of = {name: place for place, step in enumerate(ours) for name in (step.name, *step.tensors)}
    told = placings(ours)
    seen = 0
    for node in executed.graph.node:
        places = [place_of[name] for name in _answers(node) if name in place_of]
        if places and node.op_type in {"Conv", "FusedConv", "MaxPool", "AveragePool", "GlobalAveragePool"}:
            assert told[places[0]].blocked is (node.domain == "com.microsoft.nchwc"), node.name
            seen += 1
    assert seen
