from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import write_csv

from bench.study.surfaces import cost_j, survey
from bench.study.zeus import is_zeus, read_traces, read_zeus
from server.errors import ConfigError


def row(batch: int, limit: float, seconds: float, watts: float, **changes: object) -> dict[str, Any]:
    return {
        "dataset": "cifar100",
        "network": "resnet50",
        "batch_size": batch,
        "optimizer": "adam",
        "power_limit": limit,
        "time_per_epoch": seconds,
        "average_power": watts,
    } | changes


ROWS = (row(32, 100, 20, 90), row(32, 200, 16, 150), row(64, 100, 11, 95), row(64, 200, 10, 180))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "summary_power_v100.csv", ROWS)


def test_the_file_says_which_gpu(trace: Path) -> None:
    settings = read_zeus(trace)
    assert {one.job.gpu for one in settings} == {"v100"}
    assert settings[0].joules == 1800.0


def test_optima_and_what_they_save(trace: Path) -> None:
    (surface,) = survey(read_zeus(trace), eta=0.5)
    assert str(surface.fastest) == "batch 64, 200 W"
    assert str(surface.least_energy.setting) == "batch 64, 100 W"
    assert surface.least_energy.energy_saved == pytest.approx(1 - 1045 / 1800)
    assert surface.least_energy.time_added == pytest.approx(0.1)
    assert surface.batch_alone is not None
    assert surface.batch_alone.energy_saved == pytest.approx(1 - 1800 / 2400)
    assert [str(one) for one in surface.front] == ["batch 64, 200 W", "batch 64, 100 W"]


def test_eta_weighs_energy_against_time(trace: Path) -> None:
    settings = read_zeus(trace)
    (time_alone,), (energy_alone,) = survey(settings, eta=0.0), survey(settings, eta=1.0)
    assert time_alone.least_cost.setting == time_alone.fastest
    assert energy_alone.least_cost.setting == energy_alone.least_energy.setting
    assert cost_j(settings[0], 0.25, 200.0) == pytest.approx(0.25 * 1800 + 0.75 * 200 * 20)


def test_the_limit_alone_keeps_the_fastest_batch(tmp_path: Path) -> None:
    rows = [*ROWS, row(128, 100, 30, 30)]
    (surface,) = survey(read_zeus(write_csv(tmp_path / "summary_power_p100.csv", rows)))
    assert str(surface.least_energy.setting) == "batch 128, 100 W"
    assert str(surface.limit_alone.setting) == "batch 64, 100 W"


def test_jobs_are_kept_apart(tmp_path: Path) -> None:
    other = [row(32, 100, 5, 90, optimizer="sgd")]
    surfaces = survey(read_zeus(write_csv(tmp_path / "a.csv", [*ROWS, *other])))
    assert [(one.job.optimizer, one.settings) for one in surfaces] == [("adam", 4), ("sgd", 1)]
    assert surfaces[1].batch_alone is None


def test_a_limit_that_did_not_hold_shows(tmp_path: Path) -> None:
    (surface,) = survey(read_zeus(write_csv(tmp_path / "a.csv", [*ROWS, row(16, 100, 30, 101)])))
    assert [str(one) for one in surface.over_limit] == ["batch 16, 100 W"]


def test_a_setting_told_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch 32, 100 W twice"):
        read_zeus(write_csv(tmp_path / "a.csv", [*ROWS, ROWS[0]]))


def test_an_unusable_figure_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 1: average_power is '0'"):
        read_zeus(write_csv(tmp_path / "a.csv", [row(32, 100, 20, 0)]))


def test_a_trace_is_known_by_its_columns(trace: Path, tmp_path: Path) -> None:
    assert is_zeus(trace)
    assert not is_zeus(write_csv(tmp_path / "b.csv", [{"a": 1}]))
    assert not is_zeus(tmp_path / "none.csv")


def test_a_setting_that_two_files_tell_is_refused(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    copy = write_csv(tmp_path / "copy" / trace.name, ROWS[1:2])
    with pytest.raises(ConfigError, match="both tell resnet50, cifar100, adam, v100, batch 32, 200 W"):
        read_traces([trace, copy])
    with pytest.raises(ConfigError, match="both tell"):
        read_traces([trace, Path(str(trace))])
    other = write_csv(tmp_path / "summary_power_p100.csv", ROWS)
    assert len(read_traces([trace, other])) == 2 * len(ROWS)


def test_the_mark_that_spreadsheets_put_before_the_text_is_none_of_it(trace: Path) -> None:
    settings = read_zeus(trace)
    trace.write_text(trace.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert is_zeus(trace)
    assert read_zeus(trace) == settings


def test_a_quotation_without_an_end_is_told_in_a_line(trace: Path) -> None:
    trace.write_text(trace.read_text(encoding="utf-8") + '"' + "x" * 200_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as CSV: field larger"):
        read_zeus(trace)


def test_half_images_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"row 1: batch_size is '32.5'; it must be a whole number"):
        read_zeus(write_csv(tmp_path / "odd.csv", [row(32, 100, 1, 1, batch_size=32.5)]))
