from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from bench.simulate.command import DEFAULT_MAX_BATCH
from server.cli import main

KEYS = {
    "policy",
    "images_arrived",
    "images_completed",
    "images_late",
    "latency_ms",
    "energy_j",
    "images_per_joule",
    "revenue",
    "revenue_default",
    "revenue_static_oracle",
    "clock_changes",
    "decide_us_p99",
}
SURFACE = """\
batch,sm_clock_mhz,latency_ms,power_w
1,500,4,60
1,1000,3,90
8,500,16,80
8,1000,9,130
"""
PROFILE = """\
name = "measured"
source = "tests"
sm_clocks_mhz = {first = 500, last = 1000, step = 100}
boost_clock_mhz = 1000
power_limit_w = 200
idle_power_w = 20
clock_switch_s = [0.02, 0.1]
energy_counter_period_s = 0.02
power_sensor = {period_s = 0.02, window_s = 0.02}
[models.net]
surface = "surface.csv"
"""

Simulate = Callable[..., int]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    (tmp_path / "surface.csv").write_text(SURFACE, encoding="utf-8")
    path = tmp_path / "measured.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def simulate(**flags: object) -> int:
    """Run `boulton simulate` with the flags given, and the usual ones where they are not."""
    usual: dict[str, object] = {"gpu": "v100", "model": "resnet50", "arrivals": "poisson:300", "duration": 3}
    words = ["simulate"]
    for name, value in (usual | flags).items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [] if value is None else [flag, str(value)]
    return main(words)


def reported(path: Path, **flags: object) -> dict[str, Any]:
    assert simulate(json=path, **flags) == 0
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def complaint(capsys: pytest.CaptureFixture[str], **flags: object) -> str:
    """The one line that the command says when it refuses."""
    assert simulate(**flags) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("boulton: ")
    assert "\n" not in said
    return said


def test_the_result_holds_what_the_design_lists_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    report = reported(tmp_path / "out.json")
    assert set(report) >= KEYS
    assert report["policy"] == "boulton"
    assert report["simulated"] is True
    assert report["energy_source"] == "simulated"
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert report["images_arrived"] == report["images_completed"] == pytest.approx(900, rel=0.15)
    assert report["revenue_static_oracle"] >= report["revenue_default"] == report["default"]["revenue"]
    assert report["default"]["batch_limit"] == DEFAULT_MAX_BATCH
    assert report["default"]["sm_clock_mhz"] == 1530


def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    def essence(seed: int) -> list[object]:
        report = reported(tmp_path / "out.json", seed=seed)
        return [report[key] for key in sorted(KEYS - {"decide_us_p99"})]

    assert essence(1) == essence(1) != essence(2)


def test_the_table_says_that_everything_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(policy="default", explain=True) == 0
    said = capsys.readouterr().out
    assert "SIMULATED: resnet50 on v100, poisson:300 for 3 s, seed 0" in said
    assert "J (simulated)" in said
    assert "x real time" in said
    assert said.count("images in time") == 3, "one line for each decision"


def test_json_on_standard_output_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(policy="default", json="-") == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "default"


def test_a_measured_surface_limits_the_batch_to_what_was_measured(tmp_path: Path, measured: Path) -> None:
    report = reported(tmp_path / "out.json", gpu=measured, model="net", arrivals="poisson:150")
    assert report["gpu"] == "measured"
    assert report["max_batch"] == report["default"]["batch_limit"] == 8
    wider = reported(tmp_path / "out.json", gpu=measured, model="net", arrivals="poisson:150", max_batch=4)
    assert wider["max_batch"] == 4


def test_targets_are_read(tmp_path: Path) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text("slo_p99_ms = 20\nprice_per_1000_images = 0.5\n", encoding="utf-8")
    report = reported(tmp_path / "out.json", targets=targets, policy="default")
    assert report["slo_p99_ms"] == 20
    assert report["revenue"] == pytest.approx(0.5e-3 * report["images_completed"], rel=0.01)


def test_a_trace_lasts_as_long_as_it_does_or_as_long_as_asked(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,images\n0,5\n1.5,10\n4,20\n", encoding="utf-8")
    flags = {"arrivals": f"trace:{trace}", "policy": "default"}
    whole = reported(tmp_path / "out.json", duration=None, **flags)
    assert (whole["images_arrived"], whole["duration_s"]) == (35, 4.0)
    cut = reported(tmp_path / "out.json", duration=2, **flags)
    assert (cut["images_arrived"], cut["duration_s"]) == (15, 2.0)


@pytest.mark.parametrize(
    "arrivals",
    [
        "diurnal:300,0.8,3",
        "mmpp:100,600,0.5,0.5",
        "steps:1@100,1@500",
        "flash:100,800,1,0.2,0.5,0.5",
        "poisson:1e2",
    ],
)
def test_every_form_of_traffic(tmp_path: Path, arrivals: str) -> None:
    report = reported(tmp_path / "out.json", arrivals=arrivals, policy="default")
    assert report["arrivals"] == arrivals
    assert report["images_arrived"] > 100


def test_what_was_learned_is_kept_and_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state.json"
    reported(tmp_path / "out.json", state=state)
    learned = json.loads(state.read_text(encoding="utf-8"))
    assert (learned["policy"], learned["gpu"], learned["model"]) == ("boulton", "v100", "resnet50")
    reported(tmp_path / "out.json", state=state)
    assert json.loads(state.read_text(encoding="utf-8")) != learned, "it went on learning"
    capsys.readouterr()
    assert "learned with model resnet50, not vgg16" in complaint(capsys, state=state, model="vgg16")
    state.write_text("{}", encoding="utf-8")
    assert "holds no learned state" in complaint(capsys, state=state)
    learned["state"] = {"nonsense": 1}
    state.write_text(json.dumps(learned), encoding="utf-8")
    assert "--state" in complaint(capsys, state=state)


@pytest.mark.parametrize(
    ("arrivals", "why"),
    [
        ("poisson", "is not understood"),
        ("poisson:", "expected 1 number"),
        ("poisson:fast", "expected 1 number, none negative"),
        ("poisson:-5", "expected 1 number, none negative"),
        ("poisson:nan", "expected 1 number, none negative"),
        ("poisson:0", "no image arrives within 3 s"),
        ("poisson:1e7", "rates up to 1,000,000"),
        ("normal:5", "is not understood; expected poisson:RATE"),
        ("trace:", "is not understood"),
        ("diurnal:100,1.5,10", "an amplitude from 0 to 1"),
        ("mmpp:1,2,3", "expected 4 numbers"),
        ("mmpp:1,2,0,3", "mean stays"),
        ("steps:1@", "expected 2 numbers"),
        ("flash:1,2,3", "expected 6 numbers"),
        ("trace:/nowhere/trace.csv", "/nowhere/trace.csv: cannot be read: No such file"),
    ],
)
def test_unusable_traffic(capsys: pytest.CaptureFixture[str], arrivals: str, why: str) -> None:
    said = complaint(capsys, arrivals=arrivals)
    assert "--arrivals" in said
    assert why in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("time_s,images\n2,1\n1,1\n", "sort the lines by time"),
        ("time_s,images\n-1,1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n", "0 images arrive"),
        ("time_s,images\n7,1\n", "no image arrives within 3 s"),
    ],
)
def test_unusable_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(text, encoding="utf-8")
    assert why in complaint(capsys, arrivals=f"trace:{trace}")


def test_a_trace_with_times_of_the_calendar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,images\n1700000000,1\n", encoding="utf-8")
    assert "let its times start at 0" in complaint(capsys, arrivals=f"trace:{trace}", duration=None)


def test_other_things_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no GPU profile 'v1000'" in complaint(capsys, gpu="v1000")
    assert "cannot be read" in complaint(capsys, gpu=tmp_path / "none.toml")
    assert "it has efficientnet-lite0, mobilenetv2" in complaint(capsys, model="alexnet")
    assert "no such policy; there are boulton" in complaint(capsys, policy="oracle")
    assert "cannot be read" in complaint(capsys, targets=tmp_path / "none.toml")
    assert "cannot be written" in complaint(capsys, json=tmp_path / "none" / "out.json")


@pytest.mark.parametrize("flag", [{"duration": "-3"}, {"duration": "nan"}, {"seed": "x"}, {"max_batch": 0}])
def test_numbers_that_make_no_sense(capsys: pytest.CaptureFixture[str], flag: dict[str, object]) -> None:
    with pytest.raises(SystemExit) as refused:
        simulate(**flag)
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.fixture
def network(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64, 112, 112])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_prediction_moves_the_first_decision(
    capsys: pytest.CaptureFixture[str], network: Path, tmp_path: Path
) -> None:
    flags: dict[str, object] = {"gpu": "a100", "arrivals": "poisson:500", "explain": True}
    assert simulate(**flags) == 0
    cold = capsys.readouterr().out
    assert simulate(predictor="a100", network=network, **flags) == 0
    warm = capsys.readouterr().out
    assert next(iter(cold.splitlines())) != next(iter(warm.splitlines()))


def test_predictions_that_cannot_be_used_are_refused(
    capsys: pytest.CaptureFixture[str], network: Path
) -> None:
    flags: dict[str, object] = {"predictor": "a100", "network": network}
    assert "fitted to a100, and this is v100" in complaint(capsys, **flags)
    assert "go together" in complaint(capsys, gpu="a100", predictor="a100")
    assert "go together" in complaint(capsys, gpu="a100", network=network)
    assert "policy clipper takes no prediction" in complaint(capsys, gpu="a100", policy="clipper", **flags)
    assert "no predictor 'none'" in complaint(capsys, gpu="a100", **flags | {"predictor": "none"})
    assert "batches of 2048 are too far" in complaint(capsys, gpu="a100", max_batch=2048, **flags)


def test_a_card_is_slowed_down_by_a_flag_for_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"policy": "default", "slow_down": "600@1-2.5"}
    report, cool = reported(tmp_path / "out.json", **flags), reported(tmp_path / "out.json", policy="default")
    assert report["slowdowns"] == [{"sm_clock_mhz": 600, "start_s": 1.0, "end_s": 2.5}]
    assert cool["slowdowns"] == []
    for of in ("latency_ms", "default"):
        hot_ms, cool_ms = report[of].get("latency_ms", report[of]), cool[of].get("latency_ms", cool[of])
        assert hot_ms["p99"] > 1.2 * cool_ms["p99"], "the baselines suffer the same"
    said = capsys.readouterr().out
    assert "slowed down from 1 to 2.5 s, whoever decides: at most 600 MHz (SW_THERMAL_SLOWDOWN)" in said


def test_slowdowns_add_up_and_each_goes_to_a_clock_of_the_card(tmp_path: Path, measured: Path) -> None:
    words = ["simulate", "--gpu", str(measured), "--model", "net", "--arrivals", "poisson:100"]
    words += ["--duration", "2", "--slow-down", "799@0-1", "--slow-down", "500@1-2", "--json"]
    assert main([*words, str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [slowdown["sm_clock_mhz"] for slowdown in report["slowdowns"]] == [700, 500]


@pytest.mark.parametrize("given", ["600", "600@2", "600@2-1", "600@1-1", "-600@1-2", "x@1-2", "600@1-2-3"])
def test_a_slowdown_that_is_not_understood_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        simulate(slow_down=given)
    assert ended.value.code == 2
    assert "MHZ@FROM-TO" in capsys.readouterr().err


def test_a_card_cannot_be_slowed_down_below_its_lowest_clock(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the lowest clock of v100 is 135 MHz" in complaint(capsys, slow_down="100@1-2")


def test_what_serve_calls_fixed_is_the_default_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(tmp_path / "out.json", policy="fixed")["policy"] == "default"
    said = capsys.readouterr().err
    assert "boulton: --policy fixed is policy default here: the default setting\n" in said
