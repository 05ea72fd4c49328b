from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra torch")
pytest.importorskip("scikit_posthocs", reason="studies need the extra study")

from bench.study.kept import RUNS, kept_runs
from bench.train_energy.images import digits
from server.cli import main

TINY = "training_networks:tiny"


def call(folder: Path, *flags: str) -> int:
    size = ("--image-size", "8", "--epochs", "2", "--images", "200", "--threads", "1", "--device", "cpu")
    return main(["train-energy", "--network", TINY, *size, *flags, "--output", str(folder)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batch sizes, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    assert call(folder, "--batch", "20", "--batch", "64", "--repeats", "2") == 0
    return folder


def test_every_run_is_kept_with_what_it_saw(folder: Path) -> None:
    runs = kept_runs(folder)
    assert [(run.batch_size, run.number) for run in runs] == [(20, 0), (64, 0), (20, 1), (64, 1)]
    assert [run.images for run in runs[:2]] == [2 * 200, 2 * 3 * 64]  # whole batches only
    assert all(run.duration_s > 0 and run.gpu_use and 0 <= run.f1 <= 1 for run in runs)


def test_the_report_is_the_studies_own(folder: Path) -> None:
    assert "batch 64" in (folder / "report.html").read_text(encoding="utf-8")
    figures = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert figures["recipe"]["epochs"] == 2
    assert len(figures["findings"]["cells"]) == 2
    assert figures["devices"].keys() == {"cpu"}


def test_what_is_there_is_not_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / RUNS).read_bytes()
    assert call(folder, "--batch", "20", "--batch", "64", "--repeats", "2") == 0
    assert (folder / RUNS).read_bytes() == before
    assert "4 trainings, 4 of them there already" in capsys.readouterr().out


def test_an_interrupted_study_goes_on(folder: Path, tmp_path: Path) -> None:
    lines = (folder / RUNS).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / RUNS).write_text("".join(lines[:2]) + lines[2][:30], encoding="utf-8")
    assert call(tmp_path, "--batch", "20", "--batch", "64", "--repeats", "2") == 0
    runs = kept_runs(tmp_path)
    assert [(run.batch_size, run.number) for run in runs] == [(20, 0), (64, 0), (20, 1), (64, 1)]


def test_equal_seeds_train_alike_and_others_do_not(folder: Path, tmp_path: Path) -> None:
    assert call(tmp_path, "--batch", "20", "--repeats", "1") == 0
    first, other = (run for run in kept_runs(folder) if run.batch_size == 20)
    (again,) = kept_runs(tmp_path)
    assert (again.f1, again.accuracy) == (first.f1, first.accuracy)
    assert other.f1 != first.f1


def test_more_epochs_learn_more(tmp_path: Path) -> None:
    assert call(tmp_path / "little", "--batch", "20", "--repeats", "1", "--epochs", "1") == 0
    assert call(tmp_path / "much", "--batch", "20", "--repeats", "1", "--epochs", "60") == 0
    (little,), (much,) = kept_runs(tmp_path / "little"), kept_runs(tmp_path / "much")
    assert much.accuracy > max(0.4, little.accuracy)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--batch", "300"), "there are 200 training images"),
        (("--network", "nonet"), "no network nonet"),
        (("--device", "cuda:9"), "GPUs that PyTorch can use"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
) -> None:
    assert call(tmp_path, *flags) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / RUNS).exists()


def test_digits_are_real_balanced_and_split_for_good() -> None:
    images = digits(8)
    assert (len(images.train), len(images.test)) == (1347, 450)
    assert images.train.shape[1:] == (3, 8, 8)
    assert int(images.test_classes.bincount().min()) >= 43
    assert (digits(8, 100).train == images.train[:100]).all()
    assert (digits(8, 100).test == images.test).all()
