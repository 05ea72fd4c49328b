from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.compare.networks import NetworkFile
from bench.engines import builds
from bench.engines.builds import AGAIN_S, BUILD_S, Cost, Step, cost_of, main, measure
from bench.engines.overhead import mean_network


def test_a_command_is_timed_with_its_processor_time() -> None:
    cost = cost_of([sys.executable, "-c", "sum(range(3_000_000))"])
    assert cost.wall_s > 0
    assert cost.processor_s > 0


def test_the_median_decides() -> None:
    costs = (Cost(9.0, 5.0), Cost(0.5, 0.25), Cost(1.25, 0.5))
    step = Step("again", ("SM80",), 1.0, costs)
    assert (step.wall_s, step.processor_s, step.met) == (1.25, 0.5, True)
    assert not Step("again", ("SM80",), 0.5, costs).met


def test_it_builds_once_and_starts_again_from_what_was_kept(
    write_mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")
    monkeypatch.setattr(builds, "CAPABILITIES", ("SM80", "SM120"))
    steps = list(measure(write_mean, rounds=1))
    kinds = (("SM80", "SM120"), ("SM80",), ("SM120",))
    assert [(step.capabilities, step.name, step.at_most_s) for step in steps] == [
        (kind, name, bound) for kind in kinds for name, bound in (("build", BUILD_S), ("again", AGAIN_S))
    ]


def test_a_second_start_that_builds_again_is_no_second_start(
    write_mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = iter(range(10))

    def forgetful(command: list[str]) -> Cost:
        (Path(command[-1]) / f"{next(written)}.plan").touch()
        return Cost(0.1, 0.1)

    monkeypatch.setattr(builds, "cost_of", forgetful)
    with pytest.raises(RuntimeError, match="built again"):
        list(measure(write_mean, rounds=1))


def test_what_is_kept_says_what_was_missed(
    tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")
    monkeypatch.setattr(builds, "RESULTS", tmp_path)
    steps = [
        Step("build", ("SM80",), BUILD_S, (Cost(2.0, 1.0),)),
        Step("again", ("SM80",), AGAIN_S, (Cost(1.5, 1.25),)),
    ]
    monkeypatch.setattr(builds, "measure", lambda _model, _rounds: iter(steps))
    assert main(["--rounds", "1", "--save"]) == 1
    (kept,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert [step["met"] for step in kept["steps"]] == [True, False]
    assert kept["toolkit"].startswith("tensorrt-rtx ")
    assert "missed" in capsys.readouterr().out


def test_a_failing_command_ends_it_with_a_message(
    no_export: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")

    def failing(_model: Path, _rounds: int) -> object:
        cost_of([sys.executable, "-c", "raise SystemExit(3)"])
        return iter(())

    monkeypatch.setattr(builds, "measure", failing)
    assert main(["--rounds", "1"]) == 2
    assert "exit status 3" in capsys.readouterr().err


@pytest.fixture
def no_export(write_mean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientNet-Lite0 takes long to export."""
    network = NetworkFile("mean", "fp32", write_mean, "ab" * 32)
    monkeypatch.setattr(builds, "obtain_network", lambda *_given: network)


@pytest.fixture
def write_mean(tmp_path: Path) -> Path:
    """A network of two layers."""
    path = tmp_path / "mean.onnx"
    path.write_bytes(mean_network().SerializeToString())
    return path
