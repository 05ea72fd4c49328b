from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from compare_records import cell, conditions, record, start, turn

from bench.compare.html_report import report
from bench.compare.records import Record, as_json, read_record
from bench.compare.store import Store
from bench.compare.summary import Baseline, noisy_share, pareto, summarise, verdicts
from bench.compare.tables import cells, explained, main_table, noise_text, remarks, verdict_texts
from bench.compare.writing import COLUMNS, write_csv, write_json

STEADY = [10.0, 10.1, 9.9, 10.0, 10.1, 10.0]


def test_figures_of_a_line() -> None:
    (line,) = summarise([record(cell(batch=8), [10.0] * 6, power_w=40.0)], None)
    assert line.p50_ms is not None
    assert line.p50_ms.value == 10.0
    assert line.images_per_s is not None
    assert line.images_per_s.value == pytest.approx(800.0)
    assert line.joules_per_image is not None
    assert line.joules_per_image.value == pytest.approx(0.05)
    assert line.images_per_joule is not None
    assert line.images_per_joule.value == pytest.approx(20.0)
    assert line.sources == ("rapl",)


def test_energy_that_nobody_measured_is_none() -> None:
    (line,) = summarise([record(cell(), STEADY)], None)
    assert (line.power_w, line.joules_per_image, line.thrift, line.sources) == (None, None, None, ())


def test_ratios_are_taken_turn_by_turn() -> None:
    """Both slow down threefold in the second half: the ratio does not care."""
    drift = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    base = record(cell("pytorch"), [20.0 * d for d in drift])
    ours = record(cell("onnxruntime"), [10.0 * d for d in drift])
    lines = summarise([base, ours], Baseline("pytorch"))
    speed = lines[1].speed
    assert speed is not None
    assert (speed.estimate.low, speed.estimate.high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert speed.side_by_side
    assert lines[1].noisy


def test_ratios_say_when_they_were_not_measured_side_by_side() -> None:
    base, ours = record(cell("pytorch"), STEADY), record(cell("onnxruntime"), STEADY, run="later")
    speed = summarise([base, ours], Baseline("pytorch"))[1].speed
    assert speed is not None
    assert not speed.side_by_side
    lines = summarise([base, ours], Baseline("pytorch"))
    assert cells(lines[1])[6] == "*"
    assert any(text.startswith("* no ratio: not measured side by side") for text in remarks(lines))
    assert not any(text.startswith("*") for text in remarks(lines[:1]))


def test_turns_of_different_runs_are_left_out_where_others_were_side_by_side() -> None:
    base, ours = record(cell("pytorch"), [10.0] * 6), record(cell("onnxruntime"), [5.0] * 6)
    for number in (4, 5):
        ours = ours.with_turn(turn(number, 1.0, run="later"))
    speed = summarise([base, ours], Baseline("pytorch"))[1].speed
    assert speed is not None
    assert speed.side_by_side
    assert (speed.estimate.turns, speed.estimate.high) == (4, pytest.approx(2.0))


def test_engines_measured_in_different_runs_are_not_compared(tmp_path: Path) -> None:
    best, rival = record(cell("onnxruntime"), [5.0] * 6, run="later"), record(cell("pytorch"), [10.0] * 6)
    lines = summarise([best, rival], Baseline("pytorch"))
    found = verdicts(lines)
    (text,) = verdict_texts(found)
    assert text.endswith("are not compared: they were measured in different runs")
    assert "2.00" not in text
    write_json(tmp_path / "out.json", lines, found, {}, conditions())
    assert json.loads((tmp_path / "out.json").read_text())["verdicts"][0]["ratio"] is None
    write_csv(tmp_path / "out.csv", lines)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["speed"] == ""


def test_engines_of_different_precisions_are_not_compared() -> None:
    half, whole = record(cell("onnxruntime", precision="fp16"), STEADY), record(cell("pytorch"), STEADY)
    (verdict,) = verdicts(summarise([half, whole], None))
    assert verdict.best == verdict.rival == cell("pytorch")


@pytest.mark.parametrize("noisy", ["onnxruntime", "pytorch"])
def test_findings_of_a_noisy_machine_are_not_to_be_relied_on(noisy: str) -> None:
    def times(engine: str, ms: float) -> list[float]:
        return [ms, ms, ms, 1.2 * ms, 1.2 * ms, 1.2 * ms] if engine == noisy else [ms] * 6

    records = [
        record(cell(engine), times(engine, ms), power_w=100.0)
        for engine, ms in (("onnxruntime", 2.0), ("pytorch", 10.0))
    ]
    lines = summarise(records, None)
    (text,) = verdict_texts(verdicts(lines))
    assert "wanted 2x: not certain; not to be relied on: the machine was too noisy" in text
    page = report(lines, verdicts(lines), {}, conditions())
    assert "not to be relied on" in page
    quiet = summarise([record(cell("onnxruntime"), [2.0] * 6), record(cell("pytorch"), [10.0] * 6)], None)
    assert "relied" not in verdict_texts(verdicts(quiet))[0]


def test_without_a_counter_the_plots_of_energy_are_there_and_say_so() -> None:
    lines = summarise([record(cell(batch=1), STEADY), record(cell(batch=8), STEADY)], None)
    page = report(lines, (), {}, conditions())
    for title in ("Joules per image against batch", "Pareto front of latency and energy"):
        assert f"<h3>{title}</h3>" in page
    assert page.count("not measured: no energy counter on this machine for the CPU") == 2
    assert page.count("<svg") == 2


def test_with_a_counter_energy_is_drawn_and_what_lacks_one_is_named() -> None:
    turns = tuple(turn(number, 10.0, 100.0) for number in range(6))
    gpu = Record(cell("tensorrt"), "f", start(on_gpu=True), turns)
    lines = summarise([gpu, record(cell(), STEADY)], None)
    page = report(lines, (), {}, conditions())
    assert page.count("<svg") == 4
    assert "not measured: net fp32 on pytorch: no energy counter on this machine for the CPU" in page
    assert "Joules per image against batch" in page
    assert "no energy counter" not in report(lines[:1], (), {}, conditions())


def test_a_baseline_may_fix_the_precision() -> None:
    base = record(cell("pytorch", precision="fp32"), STEADY)
    half = record(cell("pytorch", precision="fp16"), [value / 2 for value in STEADY])
    fixed = summarise([base, half], Baseline("pytorch", "fp32"))[1].speed
    assert fixed is not None
    assert fixed.estimate.value == pytest.approx(2.0)
    own = summarise([base, half], Baseline("pytorch"))[1].speed
    assert own is not None
    assert own.estimate.value == pytest.approx(1.0)


def test_the_best_engine_is_held_against_each_rival_at_its_best_batch() -> None:
    records = [
        record(cell("tensorrt", 1), [1.0] * 6, power_w=100.0),
        record(cell("tensorrt", 8), [2.0] * 6, power_w=100.0),  # 40 images/J
        record(cell("pytorch", 1), [4.0] * 6, power_w=100.0),
        record(cell("pytorch", 8), [5.0] * 6, power_w=100.0),  # 16 images/J
        record(cell("tensorflow", 8), [3.0] * 6, power_w=100.0),  # 26.7 images/J
    ]
    found = {verdict.rival.subject.engine: verdict for verdict in verdicts(summarise(records, None))}
    assert {verdict.best for verdict in found.values()} == {cell("tensorrt", 8)}
    assert found["pytorch"].rival == cell("pytorch", 8)
    assert found["pytorch"].ratio.estimate.value == pytest.approx(2.5)
    assert found["tensorflow"].ratio.estimate.value == pytest.approx(1.5)
    texts = verdict_texts(list(found.values()))
    assert any("1.50x [1.50, 1.50]" in text and text.endswith("wanted 1.53x: missed") for text in texts)
    assert any("2.50x" in text and text.endswith("wanted 2x: reached") for text in texts)


def test_without_energy_the_verdict_is_about_throughput_and_says_so() -> None:
    records = [record(cell("onnxruntime"), [5.0] * 6), record(cell("pytorch"), [10.0] * 6)]
    (verdict,) = verdicts(summarise(records, None))
    assert (verdict.ratio.of, verdict.wanted) == ("images/s", None)
    assert "energy was not measured" in verdict_texts([verdict])[0]


def test_engines_on_the_cpu_do_not_compete_with_those_on_the_gpu() -> None:
    cpu = record(cell("onnxruntime"), [1.0] * 6, power_w=1.0)
    turns = tuple(turn(number, 10.0, 100.0) for number in range(6))
    gpu = Record(cell("pytorch"), "f", start(on_gpu=True), turns)
    (verdict,) = verdicts(summarise([cpu, gpu], None))
    assert verdict.best == verdict.rival == cell("pytorch")


def test_noise_is_told() -> None:
    quiet, noisy = record(cell(batch=1), STEADY), record(cell(batch=8), [10, 10, 10, 11, 11, 11])
    lines = summarise([quiet, noisy], None)
    assert noisy_share(lines) == (1, 2)
    assert "too noisy" in noise_text(lines)
    assert "net fp32 on pytorch b8" in noise_text(lines)
    assert "agree within 5%" in noise_text(lines[:1])
    many = noise_text(
        summarise([record(cell(batch=n), [10, 10, 10, 11, 11, 11]) for n in range(1, 21)], None)
    )
    assert "in 20 of 20 cells" in many
    assert many.count("net fp32 on pytorch b") == 6
    assert "and 14 more" in many
    assert "too few turns" in noise_text(summarise([record(cell(), [10.0])], None))


def test_the_front_holds_what_nothing_beats() -> None:
    records = [
        record(cell("onnxruntime", 1), [1.0] * 6, power_w=100.0),  # 0.1 J, fastest
        record(cell("pytorch", 1), [2.0] * 6, power_w=100.0),  # 0.2 J: beaten in both
        record(cell("onnxruntime", 8), [4.0] * 6, power_w=100.0),  # 0.05 J
    ]
    front = pareto(summarise(records, None))
    assert [line.cell for line in front] == [cell("onnxruntime", 1), cell("onnxruntime", 8)]


def test_failures_and_the_rest_are_shown() -> None:
    lost = Record(cell("tensorrt"), "f", None, (), "no memory for this batch")
    lines = summarise([lost, record(cell(), STEADY)], Baseline("pytorch"))
    assert "failed" in cells(lines[0])
    other = Record(cell("tensorrt", 64), "f", None, (), "no memory for this batch")
    said = remarks([*lines, *summarise([other], None)])
    assert "failed: net fp32 on tensorrt, batch 8, 64: no memory for this batch" in said
    headings, rows = main_table(lines)
    assert "J/image" not in headings
    assert {len(row) for row in rows} == {len(headings)}


def test_csv_has_a_line_a_cell_and_nothing_for_what_was_not_measured(tmp_path: Path) -> None:
    lost = Record(cell("tensorrt"), "f", None, (), "broke")
    write_csv(tmp_path / "out.csv", summarise([record(cell(), STEADY), lost], Baseline("pytorch")))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == ["pytorch", "tensorrt"]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["joules_per_image"] == ""
    assert rows[0]["energy_source"] == "not measured"
    assert float(rows[0]["speed"]) == 1.0
    assert 0.5 < float(rows[0]["coverage"]) < 1.0
    assert rows[1]["failure"] == "broke"


def test_the_table_is_explained_as_far_as_it_goes() -> None:
    steady = summarise([record(cell(), STEADY)], Baseline("pytorch"))
    said = explained(steady, Baseline("pytorch"))
    assert said.startswith("medians; ± half the width of the interval (9")
    assert said.endswith("; speed: images/s over pytorch's")
    warm = summarise([record(cell(), STEADY, power_w=30.0)], Baseline("pytorch"))
    assert explained(warm, Baseline("pytorch")).endswith("; thrift: images/J over pytorch's")
    assert explained([], None) == "medians"


def test_records_survive_the_disk(tmp_path: Path) -> None:
    kept, store = record(cell(), STEADY, power_w=30.0), Store(tmp_path)
    store.keep(kept)
    assert store.read(kept.cell, "f") == kept
    assert store.read(kept.cell, "other") == Record(kept.cell, "other")


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"cell": 3}'])
def test_damaged_files_count_as_not_there(tmp_path: Path, damage: str) -> None:
    kept, store = record(cell(), STEADY), Store(tmp_path)
    store.keep(kept)
    (path,) = (tmp_path / "cells").iterdir()
    path.write_text(damage)
    assert store.read(kept.cell, "f") == Record(kept.cell, "f")


def test_a_turn_without_latencies_is_no_turn() -> None:
    table = json.loads(json.dumps(as_json(record(cell(), STEADY))))
    table["turns"][0]["latencies_ms"] = []
    with pytest.raises(ValueError, match="not a turn"):
        read_record(table)


def test_a_new_turn_replaces_one_of_its_number() -> None:
    known = record(cell(), STEADY)
    again = known.with_turn(turn(2, 50.0))
    assert [one.number for one in again.turns] == list(range(6))
    assert again.turns[2].p50_ms == 50.0
    assert again.lacks(8) == (6, 7)
