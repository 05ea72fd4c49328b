"""The whole command on a tiny network: measured, kept, taken up again, and told."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx
import pytest
from tiny_server import whole_model

from bench.compare import command
from bench.compare.contest import Contest
from bench.compare.networks import NetworkFile, network_names, obtain_network
from bench.compare.plan import Cell, Settings
from server.errors import ConfigError
from server.exporting.precision.kinds import Precision
from server.exporting.progress import ConsoleProgress

FAST = ["--engine", "onnxruntime", "--batches", "1,4", "--window", "0.01", "--lead", "0", "--warm-up", "0.05"]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def run(out: Path, *words: str, turns: int = 4) -> int:
    return command.run(parsed(*words, *FAST, "--turns", str(turns), "--out", str(out)))


@pytest.fixture(scope="module")
def compared(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert run(out, str(network), "--engine", "tensorrt-rtx") == 0
    return out


def test_everything_is_written(compared: Path, network: Path) -> None:
    report = json.loads((compared / "compare.json").read_text())
    assert [(c["network"], c["engine"], c["batch"]) for c in report["cells"]] == [
        ("colours", "onnxruntime", 1),
        ("colours", "onnxruntime", 4),
    ]
    assert all(c["turns"] == 4 and c["images_per_s"] > 0 and c["start_s"] > 0 for c in report["cells"])
    assert "onnxruntime" in report["conditions"]["versions"]["onnxruntime"]
    assert (compared / "compare.csv").read_text().count("\n") == 3
    html = (compared / "report.html").read_text()
    assert "Throughput against batch" in html
    assert html.count("<svg") >= 2


def test_missing_engines_are_listed_with_what_to_install(compared: Path) -> None:
    if "tensorrt-rtx" not in json.loads((compared / "compare.json").read_text())["missing_engines"]:
        pytest.skip("tensorrt-rtx runs here")
    assert "not compared" in (compared / "report.html").read_text()


def test_a_second_run_measures_nothing_anew(compared: Path, network: Path) -> None:
    before = sorted((path, path.read_text()) for path in (compared / "cells").iterdir())
    assert run(compared, str(network)) == 0
    assert sorted((path, path.read_text()) for path in (compared / "cells").iterdir()) == before


def test_a_second_run_elsewhere_is_held_against_the_first(
    compared: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, str(network), "--against", str(compared / "compare.json")) == 0
    assert "against the earlier run, of 2 cells, 5% allowed" in capsys.readouterr().out
    found = json.loads((tmp_path / "compare.json").read_text())["against"]
    assert [one["cell"]["batch"] for one in found] == [1, 4]
    assert {one["verdict"] for one in found} <= {"agrees", "too noisy", "differs"}


def test_a_second_run_measures_what_is_missing(compared: Path, network: Path) -> None:
    lost, kept = sorted((compared / "cells").iterdir())
    before = kept.read_text()
    lost.unlink()
    assert run(compared, str(network)) == 0
    assert len(json.loads(lost.read_text())["turns"]) == 4
    assert kept.read_text() == before


def test_more_turns_are_added_to_those_that_are_there(compared: Path, network: Path) -> None:
    first = json.loads(next((compared / "cells").glob("*b1.json")).read_text())["turns"]
    assert run(compared, str(network), turns=5) == 0
    turns = json.loads(next((compared / "cells").glob("*b1.json")).read_text())["turns"]
    assert turns[:4] == first
    assert len(turns) == 5


def test_one_failure_does_not_end_the_rest(network: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    onnx.save(whole_model(), broken)
    assert run(tmp_path / "out", str(broken), str(network)) == command.EXIT_INCOMPLETE
    cells = json.loads((tmp_path / "out" / "compare.json").read_text())["cells"]
    failures = {(c["network"], c["batch"]): c["failure"] for c in cells}
    assert "batch dimension" in failures["broken", 1]
    assert failures["colours", 1] == failures["colours", 4] == ""


def test_time_that_is_up_ends_it_and_leaves_the_rest_for_later(network: Path, tmp_path: Path) -> None:
    assert run(tmp_path, str(network), "--minutes", "1e-9") == command.EXIT_INCOMPLETE
    assert run(tmp_path, str(network)) == 0


def test_what_was_measured_before_it_was_interrupted_is_written(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Contest._take_turn

    def interrupted(contest: Contest, cell: Cell, number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt
        take(contest, cell, number)

    monkeypatch.setattr(Contest, "_take_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, str(network))
    cells = json.loads((tmp_path / "compare.json").read_text())["cells"]
    assert [(cell["batch"], cell["turns"]) for cell in cells] == [(1, 1), (4, 1)]
    assert {path.name for path in tmp_path.iterdir()} >= set(command.FILES)
    assert not list(tmp_path.glob(".writing-*"))


def test_a_framework_that_breaks_while_exporting_costs_its_network_only(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaking(name: str, *rest: object) -> NetworkFile:
        if name == "resnet50":
            raise AttributeError("module 'torch' has no attribute 'export'")
        return obtain_network(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "obtain_network", breaking)
    assert run(tmp_path, "resnet50", str(network)) == command.EXIT_INCOMPLETE
    cells = json.loads((tmp_path / "compare.json").read_text())["cells"]
    assert [(cell["network"], cell["turns"]) for cell in cells] == [("colours", 4), ("colours", 4)]
    assert "resnet50: AttributeError: module 'torch' has no attribute" in capsys.readouterr().out


def test_lower_precision_is_exported_and_judged(classifier: Path, tmp_path: Path) -> None:
    precisions = ("--precision", "fp32", "--precision", "fp16", "--precision", "int8")
    # Noise without photographs cannot calibrate int8: that alone is told, and the others are compared.
    run(tmp_path, str(classifier), *precisions, turns=2)
    report = json.loads((tmp_path / "compare.json").read_text())
    files = {file["precision"]: file for file in report["conditions"]["files"]}
    assert files["fp32"]["agreement"] is None
    assert files["fp16"]["agreement"] > 0.5
    assert "judged on" in files["fp16"]["fidelity"]
    assert {cell["precision"] for cell in report["cells"]} == set(files)
    assert ("int8" in files) != any("int8" in text for text in report["conditions"]["unavailable"])
    assert "Precision: throughput against accuracy" in (tmp_path / "report.html").read_text()


def test_what_was_exported_once_is_found_again(classifier: Path, tmp_path: Path) -> None:
    first = obtain_network("c", str(classifier), Precision.FP16, tmp_path, ConsoleProgress())
    wrote_ns = first.path.stat().st_mtime_ns
    assert obtain_network("c", str(classifier), Precision.FP16, tmp_path, ConsoleProgress()) == first
    assert first.path.stat().st_mtime_ns == wrote_ns
    first.path.write_bytes(b"damaged")
    again = obtain_network("c", str(classifier), Precision.FP16, tmp_path, ConsoleProgress())
    assert again.sha256 == first.sha256


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.onnx"], "neither a network nor a file"),
        (["resnet50", "--engine", "onnxruntime", "--baseline", "pytorch"], "takes no part"),
    ],
)
def test_mistakes_are_found_before_anything_starts(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        command.run(parsed(*words, "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--batches", "0"],
        ["--batches", "1,x"],
        ["--baseline", "nobody"],
        ["--baseline", "pytorch:fp8"],
        ["--turns", "0"],
    ],
)
def test_flags_are_checked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("resnet50", *words)
    assert words[0] in capsys.readouterr().err


def test_two_files_of_one_name_are_refused(network: Path, tmp_path: Path) -> None:
    other = tmp_path / network.name
    other.write_bytes(network.read_bytes())
    with pytest.raises(ConfigError, match="both called colours"):
        network_names((str(network), str(other)))


def test_quick_changes_what_is_not_given() -> None:
    assert command.settings_from(parsed("resnet50", "--quick")).turns == command.QUICK.turns
    assert command.settings_from(parsed("resnet50", "--quick", "--turns", "20")).turns == 20
    assert command.settings_from(parsed("resnet50")).window_s == Settings().window_s


def test_a_file_as_it_is_needs_no_export(network: Path, tmp_path: Path) -> None:
    found = obtain_network("colours", str(network), None, tmp_path, ConsoleProgress())
    assert found.path == network
    assert not list(tmp_path.iterdir())
    assert found.precision in {*Precision, "uint8"}
