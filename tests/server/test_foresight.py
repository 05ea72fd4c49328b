"""`--predictor`: taken for the device that it was fitted to, and refused for any other."""

from __future__ import annotations

import logging
import subprocess
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
from daemon_process import command, start_daemon
from onnx import TensorProto, helper

from optimizer.devices.cpu_package import RaplCpu
from optimizer.layers.saved import load_predictor, save_predictor
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from server import foresight
from server.config import Settings
from server.errors import ConfigError
from server.foresight import foresee

GRID = OperatingGrid(tuple(range(1, 9)), (210, 810, 1410))


@dataclass
class FakeGpu:
    sm_clocks_mhz: tuple[int, ...] = (210, 810, 1410)
    uuid: str = "fake"
    simulated: bool = True


@pytest.fixture
def network(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 32, 32])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def settings(**given: object) -> Settings:
    usual = {"repository": Path("models"), "engine": "simulated", "gpu": "a100", "predictor": "a100"}
    return Settings(**(usual | given))


def test_a_predictor_of_the_device_at_hand_is_taken(network: Path) -> None:
    prior = foresee(settings(), FakeGpu(), network)(GRID)
    assert prior is not None
    assert prior.clocks_mhz == (210.0, 810.0, 1410.0)
    assert prior.sizes[-1] == 8


def test_a_predictor_of_another_device_is_refused(network: Path) -> None:
    with pytest.raises(ConfigError, match="--predictor a100: it was fitted to a100, and this is v100"):
        foresee(settings(gpu="v100"), FakeGpu(), network)


def test_a_simulated_predictor_is_refused_on_a_real_device(network: Path) -> None:
    chosen = settings(engine="onnxruntime", gpu=None)
    with pytest.raises(ConfigError, match=r"fitted to a simulated a100, and .* is real"):
        foresee(chosen, RaplCpu(), network)


def test_a_predictor_of_this_processor_is_known_by_its_name(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (info := tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Counting Frame 9\n")
    monkeypatch.setattr(foresight, "CPU_INFO", info)
    fitted = load_predictor("a100")
    real = {**fitted.provenance, "simulated": False, "device": "Counting Frame 9"}
    save_predictor(replace(fitted, provenance=real), tmp_path / "own.npz")
    chosen = settings(engine="onnxruntime", gpu=None, predictor=str(tmp_path / "own.npz"))
    with caplog.at_level(logging.INFO):
        found = foresee(chosen, RaplCpu(), network)
    assert "on Counting Frame 9" in caplog.text
    assert "simulated" not in caplog.text
    prior = found(OperatingGrid((1, 2, 4)))
    assert prior is not None
    assert prior.clocks_mhz == ()


def test_clocks_that_nobody_can_predict_at_are_governed_without_a_prior(
    network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = foresee(settings(), FakeGpu(), network)
    blind = replace(found, predictor=replace(found.predictor, clocks_mhz=()))
    assert blind(GRID) is None
    assert "the governor starts without a prediction" in caplog.text


def test_what_is_no_predictor_and_what_is_no_network_is_refused(tmp_path: Path, network: Path) -> None:
    with pytest.raises(ConfigError, match="--predictor none: no predictor 'none'"):
        foresee(settings(predictor="none"), FakeGpu(), network)
    with pytest.raises(ConfigError, match="cannot be read as an ONNX network"):
        foresee(settings(), FakeGpu(), tmp_path / "missing.onnx")


def test_a_policy_takes_what_is_foreseen(network: Path) -> None:
    prior = foresee(settings(), FakeGpu(), network)(GRID)
    assert BoultonPolicy(GRID, prior).export_state() == BoultonPolicy(GRID).export_state()


@pytest.fixture
def repository(tmp_path: Path, network: Path) -> Path:
    version = tmp_path / "repository" / "relu" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(network.read_bytes())
    return tmp_path / "repository"


def simulated(gpu: str) -> tuple[str, ...]:
    return ("--engine", "simulated", "--gpu", gpu, "--simulated-model", "resnet50", "--predictor", "a100")


def test_a_daemon_says_what_it_goes_by(tmp_path: Path, repository: Path) -> None:
    with start_daemon(tmp_path, "--repository", repository, *simulated("a100")) as daemon:
        url = f"http://127.0.0.1:{daemon.metrics_port}/metrics"
        assert b"boulton" in urllib.request.urlopen(url, timeout=30).read()
    assert "goes by what is predicted for" in daemon.text
    assert "on a100 (simulated)" in daemon.text


def test_a_daemon_does_not_start_with_a_predictor_of_another_gpu(tmp_path: Path, repository: Path) -> None:
    flags = ("--repository", repository, "--state-dir", tmp_path / "state", *simulated("v100"))
    ports = ("--port", "0", "--metrics-port", "0", "--operator-port", "0")
    done = subprocess.run(command(*flags, *ports), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--predictor a100: it was fitted to a100, and this is v100" in done.stderr
    assert "Traceback" not in done.stderr
