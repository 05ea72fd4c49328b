"""From a graph and a predictor to a prior; a predictor of something else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.foresight import check_device, prior_of, steps_of_file
from optimizer.layers.network import predict_network
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.saved import load_predictor


@pytest.fixture(scope="module")
def predictor() -> LayerPredictor:
    return load_predictor("a100")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    weights = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["y"], ["z"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 8, 32, 32])],
        [weights],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_a_prior_covers_all_sizes_and_clocks(predictor: LayerPredictor, network: Path) -> None:
    prior = prior_of(predictor, steps_of_file(network), 100, (210, 800, 1410))
    assert prior.sizes == (1, 2, 4, 8, 16, 32, 64, 100)
    assert prior.clocks_mhz == (210.0, 800.0, 1410.0)
    assert prior.times_s.shape == (8, 3)
    asked = predict_network(predictor, steps_of_file(network), prior.sizes, prior.clocks_mhz)
    np.testing.assert_array_equal(prior.times_s, asked.run_s)
    assert prior.running_w is not None
    assert asked.power_w is not None
    np.testing.assert_array_equal(prior.running_w, asked.power_w)
    assert prior.spread == pytest.approx(asked.spread.mean())


def test_where_no_clock_is_set_it_is_the_highest(predictor: LayerPredictor, network: Path) -> None:
    steps = steps_of_file(network)
    free, set_ = prior_of(predictor, steps, 8, ()), prior_of(predictor, steps, 8, (predictor.clocks_mhz[-1],))
    assert free.clocks_mhz == ()
    np.testing.assert_array_equal(free.times_s, set_.times_s)


def test_a_predictor_without_clocks_says_nothing_of_them(predictor: LayerPredictor, network: Path) -> None:
    with pytest.raises(ValueError, match="no clock could be set"):
        prior_of(replace(predictor, clocks_mhz=()), steps_of_file(network), 8, (210, 1410))


@pytest.mark.parametrize(
    ("largest", "clocks", "said"),
    [
        (8, (210, 1425), "210 to 1410 MHz: of 1425 MHz it says nothing"),
        (2000, (210, 1410), "batches of 2000 are too far"),
    ],
)
def test_a_predictor_says_nothing_of_what_is_far_from_what_it_was_fitted_to(
    predictor: LayerPredictor, network: Path, largest: int, clocks: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        prior_of(predictor, steps_of_file(network), largest, clocks)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"other.onnx cannot be read"):
        steps_of_file(path)


@pytest.mark.parametrize("name", ["a100", "A100", "/profiles/a100.toml", "NVIDIA A100"])
def test_a_predictor_fits_its_own_device(predictor: LayerPredictor, name: str) -> None:
    check_device(predictor, name, simulated=True)


def test_a_predictor_of_another_device_is_refused(predictor: LayerPredictor) -> None:
    with pytest.raises(ValueError, match="fitted to a100, and this is v100"):
        check_device(predictor, "v100", simulated=True)


def test_a_simulated_predictor_is_not_taken_for_a_real_device(predictor: LayerPredictor) -> None:
    with pytest.raises(ValueError, match="simulated a100, and A100 is real"):
        check_device(predictor, "A100", simulated=False)
