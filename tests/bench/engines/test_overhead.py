from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.engines import overhead
from bench.engines.overhead import MAX_BATCH, Overhead, main, mean_network, measure
from bench.engines.stopwatch import Split, Stopwatch, split_run
from bench.engines.subjects import SUBJECTS, Subject, missing
from server.engines.registry import ENGINE_KINDS


class Clock:
    """Advances only when told to."""

    def __init__(self) -> None:
        self.now_s = 10.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> str:
        self.now_s += seconds
        return "done"


def test_a_run_is_split_into_the_framework_and_the_rest() -> None:
    clock = Clock()
    inside = Stopwatch(clock.work, clock)

    def run() -> None:
        clock.work(0.25)
        assert inside(1.0) == "done"
        inside(0.5)
        clock.work(0.125)

    assert split_run(run, (inside,), clock) == Split(inside_s=1.5, around_s=0.375)
    assert split_run(run, (inside,), clock) == Split(inside_s=1.5, around_s=0.375)


def test_a_copy_is_not_held_against_an_engine() -> None:
    row = Overhead("torch", 8, "elsewhere", 80.0, 90.0, copy_us=31.0, framework_us=160.0, ruler_us=5.0)
    assert row.met
    assert row.ratio == 0.5
    assert not Overhead("torch", 8, "elsewhere", 80.0, 90.0, 30.0, 160.0, 5.0).met


def test_the_ruler_is_not_held_against_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(overhead, "CLOCK", clock)
    inside = Stopwatch(clock.work, clock)

    class Engine:
        def run(self, _inputs: object) -> None:
            clock.work(30e-6)
            ruled()

    def ruled() -> None:
        clock.work(10e-6)
        inside(100e-6)

    subject = Subject(cast("Any", Engine()), (inside,), lambda _images: ruled)
    row = overhead._measured("any", "in slots", subject, (np.ones(4),), ruled, runs=5)
    assert (row.own_us, row.ruler_us, row.framework_us) == pytest.approx((30.0, 10.0, 100.0))


@pytest.mark.parametrize("name", sorted(SUBJECTS.keys() - missing().keys()))
def test_a_subject_runs_inside_its_stopwatch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mean.onnx"
    path.write_bytes(mean_network().SerializeToString())
    subject = SUBJECTS[name](path, 4, (2, 4))
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    (means,) = subject.engine.run((images,))
    np.testing.assert_allclose(means, images.mean(axis=(1, 2)), rtol=1e-4)
    assert all(watch.total_s > 0 for watch in subject.inside)
    assert subject.engine.padded_images == 1
    subject.engine.close()


def test_every_engine_is_measured_in_every_situation() -> None:
    rows = list(measure(runs=1, batches=(1, MAX_BATCH)))
    installed = SUBJECTS.keys() - missing().keys()
    assert {(row.engine, row.batch, row.situation) for row in rows} == {
        (name, batch, situation)
        for name in installed
        for batch, situation in (
            (1, "in slots"),
            (1, "elsewhere"),
            (1, "short"),
            (1, "short elsewhere"),
            (MAX_BATCH, "in slots"),
            (MAX_BATCH, "elsewhere"),
        )
    }
    assert all(row.ruler_us > 0 and row.framework_us > 0 for row in rows)
    copied = {(row.engine, row.situation) for row in rows if row.copy_us}
    reads_slots_only = installed & {"pytorch"}
    assert copied == {(name, "elsewhere") for name in reads_slots_only} | {
        (name, "short elsewhere") for name in installed
    }


def test_what_is_kept_says_which_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Overhead("onnxruntime", 1, "in slots", 60.0, 70.0, 0.0, 120.0, 5.0)
    monkeypatch.setattr(overhead, "RESULTS", tmp_path)
    monkeypatch.setattr(overhead, "measure", lambda runs: iter([row] * runs))
    main(["--runs", "1", "--save"])
    (kept,) = (json.loads(path.read_text()) for path in tmp_path.iterdir())
    assert kept["rows"][0]["met"] is False
    assert kept["rows"][0]["ratio"] == 0.5
    assert kept["machine"]["cores"] >= 1
    assert kept["frameworks"].keys() == {
        ENGINE_KINDS[name].modules[0] for name in SUBJECTS if name not in missing()
    }
    assert "missed: 50 us" in capsys.readouterr().out


def test_no_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "--runs must be at least 1, got 0" in capsys.readouterr().err
