from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import make_run

from bench.study.kept import RUNS, keep, kept_runs, read_kept
from server.errors import ConfigError


def test_runs_come_back_as_they_were_kept(tmp_path: Path) -> None:
    runs = [make_run(), make_run(number=1, joules_per_image=None)]
    for run in runs:
        keep(tmp_path, run)
    assert list(read_kept(tmp_path)) == runs


def test_a_line_cut_short_is_lost_and_no_other(tmp_path: Path) -> None:
    keep(tmp_path, make_run(number=0))
    keep(tmp_path, make_run(number=1))
    path = tmp_path / RUNS
    path.write_bytes(path.read_bytes()[:-20])

    keep(tmp_path, make_run(number=2))

    assert [run.number for run in kept_runs(tmp_path)] == [0, 2]


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="boulton train-energy --output"):
        read_kept(tmp_path)
