from pathlib import Path

import pytest

from bench.layers.timed import TimedRun
from optimizer.layers.count import count_layers_of_file

pytest.importorskip("torch", reason="PyTorch is not installed: boulton[torch]")


@pytest.fixture(scope="module")
def run(network: Path) -> TimedRun:
    from bench.layers.pytorch_timing import time_network

    return time_network(network, 2, threads=1, repeats=10)


def test_every_node_is_a_layer_of_its_own(network: Path, run: TimedRun) -> None:
    assert [layer.fused for layer in run.layers] == [(layer.name,) for layer in count_layers_of_file(network)]
    assert run.unseen == ()


def test_operators_are_those_of_the_graph(run: TimedRun) -> None:
    assert {layer.name: layer.operator for layer in run.layers}["depth"] == "Conv"


def test_layers_are_part_of_the_run(run: TimedRun) -> None:
    assert all(layer.seconds > 0 for layer in run.layers)
    assert 0 < run.covered < 1


def test_a_node_of_several_calls_is_one_layer() -> None:
    from bench.layers.pytorch_timing import HostClock, _Watch

    watch = _Watch()
    watch.add([("split", 0.0, 1.0), ("split", 1.0, 1.5), ("", 2.0, 9.0)], HostClock(float), 10.0)

    assert watch.nodes == {"split": [1.5]}
    assert watch.covered == 0.15
