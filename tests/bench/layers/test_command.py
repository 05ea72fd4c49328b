import csv
import json
from pathlib import Path

import pytest

from server.cli import main

QUICK = ["--repeats", "5", "--peak-gflops", "100", "--peak-gb-per-s", "10", "--energy", "none"]


@pytest.fixture(scope="module")
def written(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    files = ["--json", str(folder / "layers.json"), "--csv", str(folder / "layers.csv")]
    assert main(["layers", str(network), "--batch", "2", "--top", "3", *QUICK, *files]) == 0
    return folder


def test_json_holds_every_layer_and_the_check(written: Path) -> None:
    found = json.loads((written / "layers.json").read_text())

    assert {"point", "add", "add_relu"} in [set(layer["nodes"]) for layer in found["layers"]]
    assert found["times"]["layers_over_alone"] > 0
    assert found["roofline"]["source"].startswith("stated")
    assert found["batch"] == 2
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1.0)


def test_energy_that_was_not_measured_is_null(written: Path) -> None:
    found = json.loads((written / "layers.json").read_text())

    assert found["energy"] is None
    assert all(layer["above_idle_j"] is None for layer in found["layers"])


def test_csv_has_a_line_for_each_layer(written: Path) -> None:
    with (written / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = json.loads((written / "layers.json").read_text())

    assert [row["layer"] for row in rows] == [layer["layer"] for layer in found["layers"]]
    assert all(row["above_idle_j"] == "" for row in rows)


def test_people_are_told_what_was_not_measured(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["layers", str(network), *QUICK])

    printed = capsys.readouterr().out
    assert "energy      not measured: as asked" in printed
    assert "ratio" in printed
    assert "Findings" in printed


def test_half_a_roofline_is_refused(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", str(network), "--peak-gflops", "100"]) == 2
    assert "give both" in capsys.readouterr().err


def test_what_is_no_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "resnet-of-nowhere"]) == 2
    assert "neither a network nor a file" in capsys.readouterr().err


def test_a_file_without_a_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.onnx"
    empty.touch()
    assert main(["layers", str(empty)]) == 2
    assert "holds no network: its graph has no input" in capsys.readouterr().err
