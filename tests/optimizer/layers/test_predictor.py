"""Predictors on made-up layers whose times follow from a formula."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimizer.layers.choosing import Candidate, fits, rank
from optimizer.layers.dataset import (
    Dataset,
    DatasetError,
    MeasuredNetwork,
    append,
    load_dataset,
    write_header,
)
from optimizer.layers.features import NAMES, FeatureTable
from optimizer.layers.fitting import fit_predictor
from optimizer.layers.fusion import Kind
from optimizer.layers.gaussian import fit_gaussian_process
from optimizer.layers.judging import judge, ours
from optimizer.layers.polynomial import fit_polynomial
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.saved import load_predictor, save_predictor

PROVENANCE = {"simulated": True, "device": "made up", "engine": "none", "date": "2026-11-21"}
CLOCKS = (500, 1000)


def products(rng: np.random.Generator, count: int, batch: int) -> FeatureTable:
    wide, out = rng.integers(64, 4096, (2, count))
    values = np.ones((count, len(NAMES)))
    put = {
        "batch": np.full(count, batch),
        "in_channels": wide,
        "out_channels": out,
        "bits": np.full(count, 32),
        "multiply_adds": batch * wide * out,
        "operations": 2 * batch * wide * out,
        "input_bytes": 4 * batch * wide,
        "weight_bytes": 4 * wide * out,
        "output_bytes": 4 * batch * out,
    }
    for name, column in put.items():
        values[:, NAMES.index(name)] = column
    return FeatureTable((Kind.FULLY_CONNECTED,) * count, tuple(map(str, range(count))), values)


def made(name: str, seed: int, clock_mhz: int) -> MeasuredNetwork:
    rng = np.random.default_rng(seed)
    table = products(rng, 8, int(rng.choice([1, 4, 16])))
    seconds = (
        5e-6 + table.column("operations") / 5e10 * 1000 / clock_mhz + table.column("weight_bytes") / 1e10
    )
    watts = 20.0 + 50.0 * clock_mhz / 1000 * np.ones(8)
    run_s = float(seconds.sum()) + 8e-6
    energy_j = float(seconds @ watts) / float(seconds.sum()) * run_s
    return MeasuredNetwork(name, 1, table, seconds, watts, run_s, 0.0, energy_j, clock_mhz)


def dataset(seeds: range) -> Dataset:
    return Dataset(PROVENANCE, tuple(made(f"n{seed}", seed, clock) for seed in seeds for clock in CLOCKS))


@pytest.fixture(scope="module")
def predictor() -> LayerPredictor:
    return fit_predictor(dataset(range(12)))


def test_networks_that_it_never_saw(predictor: LayerPredictor) -> None:
    score = judge(dataset(range(100, 104)), ours(predictor))
    assert score.layers[Kind.FULLY_CONNECTED][0] < 0.05
    assert all((score.accuracy(what) or 0.0) > 0.97 for what in ("run_error", "power_error", "energy_error"))


def test_power_of_steps_is_told_apart_from_the_energy_of_networks() -> None:
    whole = Dataset(PROVENANCE, tuple(replace(one, watts=None) for one in dataset(range(12)).measured))
    score = judge(dataset(range(100, 104)), ours(fit_predictor(whole)))
    power_error = score.layers[Kind.FULLY_CONNECTED][1]
    assert power_error is not None
    assert power_error < 0.05
    assert (score.accuracy("energy_error") or 0.0) > 0.95


def test_steps_beside_their_own_time() -> None:
    """What a run takes once, for each step, and for each byte that is turned, is found again."""
    measured = []
    for one in dataset(range(12)).measured:
        values = one.table.values.copy()
        values[:, NAMES.index("turned_bytes")] = 1000.0 * len(one.network)
        table = replace(one.table, values=values)
        run_s = float(one.seconds.sum()) + 5e-5 + 1e-9 * float(table.column("turned_bytes").sum())
        measured.append(replace(one, table=table, run_s=run_s))
    predictor = fit_predictor(Dataset(PROVENANCE, tuple(measured)))
    found = predictor.besides_s(measured[0].table)
    assert found == pytest.approx(measured[0].run_s - measured[0].seconds.sum(), rel=0.05)


def test_a_clock_between_those_that_were_measured(predictor: LayerPredictor) -> None:
    table = products(np.random.default_rng(7), 5, 4)
    low, middle, high = predictor.predict(table, (500, 750, 1000)).seconds.T
    assert (low > middle).all()
    assert (middle > high).all()


def test_clocks_must_go_with_the_predictor(predictor: LayerPredictor) -> None:
    with pytest.raises(ValueError, match="500 to 1000 MHz"):
        predictor.predict(products(np.random.default_rng(7), 5, 4))


@pytest.mark.parametrize("clock_mhz", [499, 1001, 5000])
def test_nothing_is_said_of_clocks_beyond_those_that_were_measured(
    predictor: LayerPredictor, clock_mhz: int
) -> None:
    with pytest.raises(ValueError, match=f"500 to 1000 MHz: of {clock_mhz} MHz it says nothing"):
        predictor.predict(products(np.random.default_rng(7), 5, 4), (500, clock_mhz))


def test_the_largest_batch_is_remembered(predictor: LayerPredictor, tmp_path: Path) -> None:
    assert predictor.largest_batch == 16
    save_predictor(predictor, tmp_path / "p.npz")
    assert load_predictor(tmp_path / "p.npz").largest_batch == 16
    assert replace(predictor, processes={}).largest_batch is None


def test_means_are_the_same_without_doubts() -> None:
    x = np.linspace(0.0, 1.0, 40)[:, np.newaxis]
    process = fit_gaussian_process(x, np.sin(6.0 * x))
    asked = np.array([[0.52], [9.0]])
    np.testing.assert_array_equal(process.expect(asked), process.predict(asked)[0])


def test_kinds_that_were_never_measured_are_named(predictor: LayerPredictor) -> None:
    table = products(np.random.default_rng(7), 2, 4)
    odd = FeatureTable((Kind.UNKNOWN, Kind.FULLY_CONNECTED), table.names, table.values)
    predicted = predictor.predict(odd, CLOCKS)
    assert predicted.guessed == ("unknown",)
    assert (predicted.seconds > 0.0).all()


def test_a_saved_predictor_says_the_same(predictor: LayerPredictor, tmp_path: Path) -> None:
    save_predictor(predictor, tmp_path / "p.npz")
    table = products(np.random.default_rng(7), 5, 4)
    before, after = (
        predictor.predict(table, CLOCKS),
        load_predictor(tmp_path / "p.npz").predict(table, CLOCKS),
    )
    assert after.seconds == pytest.approx(before.seconds, rel=1e-5)
    assert after.spread == pytest.approx(before.spread, rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x80\x04K\x01."])
def test_files_that_are_no_predictors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="not a predictor"):
        load_predictor(tmp_path / "p.npz")


def test_a_dataset_that_was_cut_short_loses_its_last_line_only(tmp_path: Path) -> None:
    path, whole = tmp_path / "d.jsonl", dataset(range(2))
    write_header(path, PROVENANCE)
    for one in whole.measured:
        append(path, one)
    path.write_text(path.read_text()[:-40])
    found = load_dataset(path)
    assert [one.network for one in found.measured] == ["n0", "n0", "n1"]
    assert np.array_equal(found.measured[0].table.values, whole.measured[0].table.values)
    assert found.measured[0].watts is not None
    assert found.measured[0].watts.tolist() == pytest.approx([45.0] * 8)


def test_what_is_measured_after_a_line_was_cut_short_is_kept(tmp_path: Path) -> None:
    path, whole = tmp_path / "d.jsonl", dataset(range(2)).measured
    write_header(path, PROVENANCE)
    append(path, whole[0])
    path.write_text(path.read_text()[:-40])
    for one in whole[1:]:
        append(path, one)
    assert len(load_dataset(path).measured) == len(whole) - 1


@pytest.mark.parametrize("figure", [-1.0, 0.0, math.inf])
@pytest.mark.parametrize("place", ["batch", "run_s", "seconds"])
def test_figures_that_nothing_can_have_are_named_with_their_line(
    place: str, figure: float, tmp_path: Path
) -> None:
    path, one = tmp_path / "d.jsonl", made("n", 1, CLOCKS[0])
    write_header(path, PROVENANCE)
    append(path, one)
    record = json.loads(path.read_text().splitlines()[1])
    if place == "seconds":
        record["steps"][0][2] = figure
    else:
        record[place] = figure
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(DatasetError, match="line 3: batch, times and watts must be above 0"):
        load_dataset(path)


def test_of_several_rounds_the_middle_counts(tmp_path: Path) -> None:
    path, one = tmp_path / "d.jsonl", made("n", 1, CLOCKS[0])
    write_header(path, PROVENANCE)
    for factor in (0.5, 1.0, 4.0):
        append(path, replace(one, seconds=one.seconds * factor, run_s=one.run_s * factor))
    (found,) = load_dataset(path).measured
    assert found.seconds == pytest.approx(one.seconds)
    assert found.run_s == pytest.approx(one.run_s)
    assert found.rounds == 3


def test_rounds_of_one_network_must_have_the_same_steps(tmp_path: Path) -> None:
    path, one = tmp_path / "d.jsonl", made("n", 1, CLOCKS[0])
    write_header(path, PROVENANCE)
    append(path, one)
    append(path, replace(one, table=one.table.rows([0, 1]), seconds=one.seconds[:2], watts=None))
    with pytest.raises(DatasetError, match="twice with other steps"):
        load_dataset(path)


def test_a_process_doubts_what_is_far_away() -> None:
    x = np.linspace(0.0, 1.0, 40)[:, np.newaxis]
    process = fit_gaussian_process(x, np.sin(6.0 * x))
    means, doubts = process.predict(np.array([[0.52], [9.0]]))
    assert means[0, 0] == pytest.approx(np.sin(6.0 * 0.52), abs=0.05)
    assert doubts[1, 0] > 3.0 * doubts[0, 0]


def test_lasso_finds_the_terms_of_a_polynomial() -> None:
    pytest.importorskip("sklearn", reason="Lasso is scikit-learn's")
    rng = np.random.default_rng(0)
    raw = rng.uniform(1.0, 4.0, (200, 3))
    model = fit_polynomial(raw, np.empty((200, 0)), 3.0 * raw[:, 0] * raw[:, 1] + 1.0, 2)
    assert model.predict(np.array([[2.0, 3.0, 1.0]]), np.empty((1, 0))) == pytest.approx([19.0], rel=0.02)
    assert model.terms < 9


def test_the_energy_precision_ratio_and_its_limits() -> None:
    exact = Candidate("exact", "big", 0.1, 4.0, 0.02)
    thrifty = Candidate("thrifty", "big", 0.2, 1.0, 0.01)
    wasteful = Candidate("thrifty", "huge", 0.2, 3.0, 0.005)
    by_energy = rank([exact, thrifty, wasteful], alpha=0.0)
    assert [one.candidate for one in by_energy] == [thrifty, wasteful, exact]
    assert rank([exact, thrifty], alpha=3.0)[0].candidate is exact
    assert rank([exact, thrifty], alpha=3.0)[0].ratio == pytest.approx(0.004)
    assert [one.pareto for one in by_energy] == [True, False, True]
    assert by_energy[1].energy_over_best == pytest.approx(3.0)
    limited = rank([exact, thrifty], alpha=3.0, slo_s=0.015)
    assert [(one.candidate, one.excluded) for one in limited] == [(thrifty, False), (exact, True)]
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        rank([Candidate("x", "y", 0.0, 1.0, 1.0)], alpha=1.0)


def test_devices_are_told_apart_by_energy_within_the_limit() -> None:
    lean, fat = Candidate("a", "lean", 0.1, 1.0, 0.02), Candidate("a", "fat", 0.1, 2.0, 0.01)
    other = Candidate("a", "other", 0.1, 5.0, 0.011)
    free, limited, none = (fits(rank([lean, fat, other], 1.0, slo_s)) for slo_s in (None, 0.015, 0.001))
    assert [one.candidate for one in free[0].within] == [lean, fat, other]
    assert [one.candidate for one in limited[0].within] == [fat, other]
    assert [one.energy_over_best for one in limited[0].within] == [1.0, 2.5]
    assert [(one.candidate, one.energy_over_best) for one in limited[0].too_slow] == [(lean, 0.5)]
    assert [one.candidate for one in none[0].too_slow] == [fat, other, lean]
    assert (none[0].within, none[0].too_slow[0].energy_over_best) == ((), None)


def test_doubts_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 2))
    process = fit_gaussian_process(x, x[:, :1] ** 2 + 0.1 * rng.normal(size=(60, 1)))
    asked = rng.normal(size=(5, 2))
    unit, points = (asked - process.means) / process.scales, process.points
    far = np.sqrt(5.0) * np.linalg.norm((unit[:, np.newaxis] - points) / process.lengths, axis=2)
    between = np.sqrt(5.0) * np.linalg.norm((points[:, np.newaxis] - points) / process.lengths, axis=2)
    near, all_ = ((1.0 + d + d**2 / 3.0) * np.exp(-d) for d in (far, between))
    known = np.sum(near.T * np.linalg.solve(all_ + process.noise * np.eye(60), near.T), axis=0)
    variance = (1.0 - known + process.noise) * process.variances[0]
    assert process.predict(asked)[1][:, 0] == pytest.approx(np.sqrt(variance), rel=1e-6)
