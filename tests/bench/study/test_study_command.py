from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import delrey_row, make_run, write_csv

from bench.study.kept import keep
from server.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As del Rey et al.'s, with the published saving in it, a failed run and an image too few networks."""
    pytest.importorskip("scikit_posthocs", reason="studies need the extra study")
    runs = [
        make_run(gpu, net, number, joules_per_image=cost * (1 + number / 1000), gpu_use=0.5 + number / 1000)
        for gpu in ("RTX 3070", "RTX 3090")
        for net, cost in (("vgg16", 1.0), ("mobilenet_v2", 0.1862))
        for number in range(9)
    ]
    failed = make_run("RTX 3070", "vgg16", 9, f1=0.0)
    return write_csv(tmp_path / "data.csv", map(delrey_row, [*runs, failed]))


def test_training_writes_a_page_of_its_own_and_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "training", str(data), "--output", str(tmp_path / "out")]) == 0

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    figures = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert figures["compared"] == 36
    assert figures["dropped"] == [["RTX 3070", "vgg16", 32, 9, "learned nothing: F1 0.00"]]
    assert figures["claims"][0]["held"] is True
    assert figures["claims"][0]["found"]["saving"]["share"] == pytest.approx(0.8138)
    assert "reproduced" in capsys.readouterr().out


def test_a_figure_that_is_not_reproduced_ends_with_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        delrey_row(make_run(architecture=net, number=n)) for net in ("vgg16", "mobilenet_v2") for n in (1, 2)
    ]
    assert main(["study", "training", str(write_csv(data, rows)), "--output", str(tmp_path / "out")]) == 1
    assert "NOT reproduced" in capsys.readouterr().out


def test_runs_without_energy_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scikit_posthocs", reason="studies need the extra study")
    for number in range(3):
        keep(tmp_path, make_run("cpu", "nin", number, joules_per_image=None, seconds=2.0))
    assert main(["study", "training", str(tmp_path), "--output", str(tmp_path)]) == 0
    assert "Energy was not measured in 3 of 3 runs" in capsys.readouterr().out
    assert "Energy was not measured" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_runs_of_ones_own_are_all_compared_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scikit_posthocs", reason="studies need the extra study")
    for number in range(2):
        keep(tmp_path, make_run(number=number, f1=0.1))
    call = ["study", "training", str(tmp_path), "--output", str(tmp_path)]
    assert main(call) == 0
    assert "No run is left out." in capsys.readouterr().out
    assert main([*call, "--least-f1", "0.2"]) == 2


def test_a_study_in_which_every_training_failed_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scikit_posthocs", reason="studies need the extra study")
    data = write_csv(tmp_path / "data.csv", [delrey_row(make_run(f1=0.1))])
    assert main(["study", "training", str(data), "--output", str(tmp_path)]) == 2
    assert "--least-f1" in capsys.readouterr().err


def test_zeus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power"
    trace = tmp_path / "summary_power_v100.csv"
    trace.write_text(f"{header}\nc,net,32,adam,100,20,90\nc,net,32,adam,200,16,150\n", encoding="utf-8")

    assert main(["study", "zeus", str(trace), "--output", str(tmp_path / "out")]) == 0

    assert "25.0%" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert figures["surfaces"][0]["job"]["gpu"] == "v100"
    assert main(["study", "training", str(trace)]) == 2
    assert "boulton study zeus" in capsys.readouterr().err
