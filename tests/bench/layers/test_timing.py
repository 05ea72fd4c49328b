import json
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from bench.layers.profile import read_profile
from bench.layers.timed import TimedLayer, TimedRun, clock_for, quickest_quarter
from bench.layers.timing import time_layers, time_network
from optimizer.layers.count import count_layers_of_file
from server.errors import EngineError


@pytest.fixture(scope="module")
def run(network: Path) -> TimedRun:
    return time_network(network, 2, repeats=10)


def test_every_node_is_timed_once(network: Path, run: TimedRun) -> None:
    fused = [name for layer in run.layers for name in layer.fused]

    assert sorted(fused) == sorted(layer.name for layer in count_layers_of_file(network))
    assert run.unseen == ()


def test_what_is_fused_carries_the_name_of_its_heaviest_node(run: TimedRun) -> None:
    (summed,) = [layer for layer in run.layers if "add" in layer.fused]

    assert summed.name == "point"
    assert summed.fused == ("point", "add", "add_relu")


def test_layers_take_time_and_no_more_than_the_run(run: TimedRun) -> None:
    assert all(layer.seconds >= 0 for layer in run.layers)
    assert run.layers_s > 0
    assert 0 < run.covered <= 1


def test_the_file_is_left_alone(network: Path) -> None:
    before = sorted(network.parent.iterdir())

    assert time_layers(network, 1, repeats=5)
    assert sorted(network.parent.iterdir()) == before


def test_names_that_name_two_nodes_are_refused(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    model.graph.node[1].name = model.graph.node[3].name = "same"
    onnx.save(model, tmp_path / "twice.onnx")

    with pytest.raises(EngineError, match="several nodes are called same"):
        time_layers(tmp_path / "twice.onnx", 1)


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"no network")

    with pytest.raises(EngineError, match="not a readable ONNX file"):
        time_layers(tmp_path / "garbage.onnx", 1)


def test_a_batch_that_the_graph_does_not_take_is_refused(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")

    with pytest.raises(EngineError, match="takes batches of 4 only, not 2"):
        time_layers(tmp_path / "fixed.onnx", 2)


def test_a_graph_with_an_open_size_is_refused(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", 1, ["batch", 3, "height", 16]))
    onnx.save(model, tmp_path / "open.onnx")

    with pytest.raises(EngineError, match="only its batch may be open"):
        time_layers(tmp_path / "open.onnx", 1)


def event(name: str, cat: str, ts: int, dur: int, index: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "cat": cat,
        "ts": ts,
        "dur": dur,
        "args": {"op_name": "Conv", "node_index": str(index)},
    }


def profile_of(tmp_path: Path, events: list[dict[str, Any]]) -> Path:
    (tmp_path / "profile.json").write_text(json.dumps(events))
    return tmp_path / "profile.json"


def test_a_profile_tells_runs_apart(tmp_path: Path) -> None:
    events = [event("session_initialization", "Session", 0, 900)]
    for began, pace in ((1000, 10), (2000, 1), (3000, 2)):
        events += [
            event("a_kernel_time", "Node", began, 30 * pace, 0),
            event("b_kernel_time", "Node", began + 400, 10 * pace, 1),
            event("model_run", "Session", began, 50 * pace),
        ]

    profile = read_profile(profile_of(tmp_path, events), skipped=[0])

    assert [node.name for node in profile.nodes] == ["a", "b"]
    assert profile.nodes[0].seconds == pytest.approx((30e-6, 60e-6))
    assert profile.runs_s == pytest.approx((50e-6, 100e-6))
    assert profile.covered == pytest.approx(0.8)


def test_a_node_that_did_not_run_each_time_is_refused(tmp_path: Path) -> None:
    events = [
        event("a_kernel_time", "Node", 0, 1),
        event("model_run", "Session", 0, 5),
        event("model_run", "Session", 9, 5),
    ]

    with pytest.raises(EngineError, match="a ran 1 times in 2 runs"):
        read_profile(profile_of(tmp_path, events))


def test_interruptions_do_not_count() -> None:
    assert quickest_quarter([2.0, 900.0, 4.0, 800.0, 700.0, 900.0, 900.0, 900.0]) == 3.0
    assert quickest_quarter([900.0, 1.0, 2.0]) == 1.0
    assert quickest_quarter([7.0]) == 7.0


def test_a_thread_alone_is_timed_by_its_own_clock() -> None:
    assert clock_for(1) is time.thread_time
    assert clock_for(2) is time.perf_counter


def test_the_parts_are_held_against_the_whole() -> None:
    layers = (TimedLayer("a", "Conv", 0.003, ("a",)), TimedLayer("b", "Relu", 0.001, ("b",)))

    run = TimedRun(layers, alone_s=0.005, watched_s=0.006, covered=0.9)

    assert run.adds_up == pytest.approx(0.8)
    assert run.watching == pytest.approx(1.2)
