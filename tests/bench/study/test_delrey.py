from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import delrey_row, make_run, write_csv

from bench.study.delrey import read_delrey
from optimizer.telemetry import EnergySource
from server.errors import ConfigError


def test_units_become_si(tmp_path: Path) -> None:
    row = delrey_row(make_run(), **{"energy (MJ)": 0.5, "training duration (h)": 2.0, "gpu usage (%)": 80.0})

    (run,) = read_delrey(write_csv(tmp_path / "data.csv", [row]))

    assert (run.energy.joules, run.duration_s, run.gpu_use) == (0.5e6, 7200.0, 0.8)
    assert run.energy.source is EnergySource.NVML_POWER
    assert run.joules_per_image == 500.0


def test_parquet_and_csv_tell_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra study")
    from pyarrow import parquet

    rows = [delrey_row(make_run(number=number, f1=0.9 + number / 100)) for number in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")

    assert read_delrey(tmp_path / "data.parquet") == read_delrey(write_csv(tmp_path / "data.csv", rows))


def test_the_vendor_is_no_part_of_the_gpus_name(tmp_path: Path) -> None:
    (run,) = read_delrey(write_csv(tmp_path / "data.csv", [delrey_row(make_run("RTX 3090"))]))
    assert run.gpu == "RTX 3090"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    row = delrey_row(make_run())
    row["energy (GJ)"] = row.pop("energy (MJ)")
    with pytest.raises(ConfigError, match=r"no column energy \(MJ\); it has .*energy \(GJ\)"):
        read_delrey(write_csv(tmp_path / "data.csv", [row]))


@pytest.mark.parametrize(
    ("column", "value"),
    [("energy (MJ)", 0.0), ("energy (MJ)", "nan"), ("f1-score", -0.1), ("batch size", "")],
)
def test_an_unusable_figure_is_named_with_its_row(tmp_path: Path, column: str, value: object) -> None:
    rows = [delrey_row(make_run()), delrey_row(make_run(number=1), **{column: value})]
    with pytest.raises(ConfigError, match="row 2: ") as told:
        read_delrey(write_csv(tmp_path / "data.csv", rows))
    assert column in str(told.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the extra study")
    path = tmp_path / "data.parquet"
    path.write_text("hello")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        read_delrey(path)


def test_what_spreadsheets_and_accidents_make_of_a_table(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "data.csv", [delrey_row(make_run())])
    text, runs = path.read_text(encoding="utf-8"), read_delrey(path)
    path.write_text(text, encoding="utf-8-sig")
    assert read_delrey(path) == runs
    path.write_text(text + '"' + "x" * 200_000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be read as Parquet or, .* field larger"):
        read_delrey(path)


def test_half_images_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"row 1: batch size is '32.5'; it must be a whole number"):
        read_delrey(write_csv(tmp_path / "data.csv", [delrey_row(make_run(), **{"batch size": 32.5})]))
