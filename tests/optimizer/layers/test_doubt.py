"""Whether stated doubts hold what they say, on networks that were left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.layers.dataset import Dataset, MeasuredNetwork
from optimizer.layers.doubt import RunDoubt, run_doubt, widening
from optimizer.layers.features import NAMES, FeatureTable
from optimizer.layers.fitting import fit_predictor
from optimizer.layers.fusion import Kind
from optimizer.layers.gaussian import constant_process
from optimizer.layers.judging import held

_STEPS = 6


def moved(seed: int, kind: Kind, disturbed: float) -> MeasuredNetwork:
    """A network of steps whose times follow from their bytes, but for what disturbs each and all of them."""
    rng = np.random.default_rng([7, seed])
    values = np.ones((_STEPS, len(NAMES)))
    for name in ("input_bytes", "output_bytes"):
        values[:, NAMES.index(name)] = np.exp(rng.uniform(np.log(1e4), np.log(1e7), _STEPS))
    table = FeatureTable((kind,) * _STEPS, tuple(map(str, range(_STEPS))), values)
    plain = 2e-6 + (table.column("input_bytes") + table.column("output_bytes")) / 1e10
    seconds = plain * np.exp(disturbed * (rng.standard_t(3, _STEPS) + rng.normal()))
    return MeasuredNetwork(f"n{seed}", 1, table, seconds, None, float(seconds.sum()))


@pytest.mark.parametrize(
    ("kind", "disturbed"), [(Kind.MOVE, 0.02), (Kind.MOVE, 0.2), (Kind.CONVOLUTION, 0.1)]
)
def test_a_deviation_holds_two_thirds_and_the_tail_nine_tenths(kind: Kind, disturbed: float) -> None:
    known = Dataset({"simulated": True}, tuple(moved(seed, kind, disturbed) for seed in range(150)))
    predictor = fit_predictor(known)
    of_steps, of_runs = [], []
    for seed in range(200, 500):
        one = moved(seed, kind, disturbed)
        said = predictor.predict(one.table)
        errors = np.log(said.seconds[:, 0] / one.seconds)
        of_steps.append(errors / said.spread[:, 0])
        error = np.log((said.seconds.sum() + predictor.besides_s(one.table)) / one.run_s)
        of_runs.append(error / float(predictor.doubt.of_runs(said.seconds[:, 0], said.spread[:, 0])))
    assert np.mean(np.abs(of_steps) < 1.0) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(of_runs) < 1.0) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(of_runs) < predictor.doubt.tail) == pytest.approx(0.9, abs=0.07)


def test_what_lay_within_stated_doubts_is_counted_by_kind_and_for_runs() -> None:
    known, new = (
        Dataset({"simulated": True}, tuple(moved(seed, Kind.MOVE, 0.1) for seed in seeds))
        for seeds in (range(60), range(200, 300))
    )
    predictor = fit_predictor(known)
    found = held(new, predictor)
    assert found.keys() == {"runs", "move"}
    runs, steps = found["runs"], found["move"]
    assert (runs.count, steps.count) == (100, 600)
    assert runs.one <= runs.two <= 1.0
    assert runs.one == pytest.approx(0.68, abs=0.15)
    assert runs.band == pytest.approx(0.9, abs=0.1)
    assert steps.band is None
    narrow = replace(predictor, doubt=RunDoubt(0.01, 1.0))
    assert held(new, narrow)["runs"].two < 0.1
    assert held(new, narrow)["move"] == steps


def test_too_few_networks_leave_the_assumed_doubt() -> None:
    few = Dataset({"simulated": True}, tuple(moved(seed, Kind.MOVE, 0.1) for seed in range(6)))
    assert fit_predictor(few).doubt == RunDoubt()


def test_a_band_is_as_wide_as_what_it_must_hold() -> None:
    ratios = np.array([-4.0, 0.5, -0.5, 0.5, -2.0, 0.5, 0.5, 0.5, 0.5, -0.5])
    assert widening(ratios) == 0.5
    assert widening(ratios, 0.9) == 4.0


def test_a_run_of_many_steps_is_surer_than_its_steps() -> None:
    ten = np.ones(10), np.full(10, 0.2)
    assert 0.1 < float(RunDoubt().of_runs(*ten)) < 0.2
    assert float(RunDoubt(factor=2.0).of_runs(*ten)) == pytest.approx(2.0 * float(RunDoubt().of_runs(*ten)))
    found = run_doubt([ten] * 4, np.array([0.01, -0.01, 0.01, -0.02]))
    assert float(found.of_runs(*ten)) == pytest.approx(0.02)


def test_a_constant_process_answers_nought_everywhere() -> None:
    process = constant_process(np.zeros((4, 2)), np.array([[0.1], [-0.1], [0.3], [-0.3]]))
    means, doubts = process.predict(np.array([[0.0, 0.0], [9.0, -9.0]]))
    assert (means == 0.0).all()
    assert doubts == pytest.approx(np.full((2, 1), np.sqrt(0.05)))
    assert replace(process, variances=process.variances * 4.0).predict(np.zeros((1, 2)))[1] == pytest.approx(
        2.0 * np.sqrt(0.05)
    )
