"""Fitting our predictor to a dataset, and finding out by networks that are left out how far to trust it.

Steps that compute little are left to the causes of their time. What else could be learned of them is mostly
what else went on while they were measured: they wait for memory, which a machine shares with others.

Networks are dealt into a few hands. For each hand a predictor is fitted to all others and says what it thinks
of the hand; doubts are made so wide that they hold what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimizer.layers.costs import ANY, causes_of
from optimizer.layers.dataset import Array, Dataset, Rows
from optimizer.layers.doubt import RunDoubt, run_doubt, widening
from optimizer.layers.fusion import Kind
from optimizer.layers.gaussian import constant_process, fit_gaussian_process
from optimizer.layers.predictor import LayerPredictor, besides
from optimizer.layers.sharing import step_watts
from optimizer.layers.view import view

_LEAST_ROWS = 25
_LEAST_PRICED = 2
"""Rows that must have a cause: where one has a little of it, the price might be anything."""
_HANDS = 5
_LEAST_NETWORKS = 10
_SEED = 0
_BY_CAUSES = frozenset({Kind.POOLING, Kind.ELEMENTWISE, Kind.NORMALISATION, Kind.MOVE})
"""Kinds that are left to the causes of their time."""


def fit_predictor(dataset: Dataset) -> LayerPredictor:
    """Fit to a dataset; power too where steps or at least whole networks were metered (see `sharing`).

    Needs SciPy (`pip install 'boulton[study]'`).

    Raises:
        ValueError: the same steps were not measured at every clock, or there are hardly any.
    """
    if len({one.network for one in dataset.measured}) < _LEAST_NETWORKS or _rows(dataset) < 2 * _LEAST_ROWS:
        return _fit(dataset)
    trials = _trials(dataset)
    factors = {kind: _widening(trials, kind) for kind in _kinds(trials)}
    trials = [replace(trial, predictor=_widened(trial.predictor, factors)) for trial in trials]
    return replace(_widened(_fit(dataset), factors), doubt=_run_doubt(trials))


@dataclass(frozen=True, slots=True)
class _Trial:
    """A predictor, and networks that it was not fitted to, at the highest clock."""

    predictor: LayerPredictor
    left_out: Dataset

    @property
    def rows(self) -> Rows:
        return self.left_out.rows()

    def logs(self) -> tuple[Array, Array]:
        """Return the errors of the logarithms of all steps, and their doubts."""
        predicted = self.predictor.predict(self.rows.table, self.predictor.clocks_mhz[-1:])
        return np.log(predicted.seconds[:, 0] / self.rows.seconds), predicted.spread[:, 0]

    def known(self) -> set[str]:
        """Return the kinds of steps that were left out and that the predictor was fitted to."""
        return {kind.value for kind in self.rows.table.kinds} & set(self.predictor.processes)


def _trials(dataset: Dataset) -> list[_Trial]:
    """Deal networks into hands, and leave each hand out once."""
    networks = sorted({one.network for one in dataset.measured})
    dealt = np.random.default_rng(_SEED).permutation(len(networks)) % _HANDS
    highest = dataset.clocks_mhz[-1] if dataset.clocks_mhz else None
    found = []
    for number in range(_HANDS):
        hand = {network for network, place in zip(networks, dealt, strict=True) if place == number}
        others = dataset.only(set(networks) - hand)
        found.append(_Trial(_fit(others), dataset.only(hand).at_clock(highest)))
    return found


def _rows(dataset: Dataset) -> int:
    return sum(len(one.seconds) for one in dataset.measured)


def _kinds(trials: Sequence[_Trial]) -> set[str]:
    """Return the kinds of what was left out that a predictor knew."""
    return {kind for trial in trials for kind in trial.known()}


def _widening(trials: Sequence[_Trial], kind: str) -> float:
    ratios = []
    for trial in (trial for trial in trials if kind in trial.known()):
        own = trial.rows.table.of(Kind(kind))
        errors, doubts = trial.logs()
        ratios.append(errors[own] / doubts[own])
    return widening(np.concatenate(ratios))


def _widened(predictor: LayerPredictor, factors: Mapping[str, float]) -> LayerPredictor:
    wide = {
        kind: replace(process, variances=process.variances * factors.get(kind, 1.0) ** 2)
        for kind, process in predictor.processes.items()
    }
    return replace(predictor, processes=wide)


def _run_doubt(trials: Sequence[_Trial]) -> RunDoubt:
    parts, errors = [], []
    for trial in trials:
        predicted = trial.predictor.predict(trial.rows.table, trial.predictor.clocks_mhz[-1:])
        ends = np.cumsum([len(one.seconds) for one in trial.left_out.measured])[:-1]
        columns = predicted.seconds[:, 0], predicted.spread[:, 0]
        each = list(zip(*(np.split(column, ends) for column in columns), strict=True))
        for one, (seconds, spread) in zip(trial.left_out.measured, each, strict=True):
            run_s = float(seconds.sum()) + trial.predictor.besides_s(one.table)
            parts.append((seconds, spread))
            errors.append(np.log(run_s / one.run_s))
    return run_doubt(parts, np.array(errors))


def _fit(dataset: Dataset) -> LayerPredictor:
    clocks = dataset.clocks_mhz
    sweeps = [dataset.at_clock(clock).rows() for clock in clocks or (None,)]
    first = sweeps[0]
    _check(sweeps)
    times = np.column_stack([rows.seconds for rows in sweeps])
    watts = [
        found for clock in clocks or (None,) if (found := step_watts(dataset.at_clock(clock))) is not None
    ]
    powers = np.log(np.column_stack(watts)) if len(watts) == len(sweeps) else None
    kinds = [kind for kind in Kind if kind is not Kind.UNKNOWN and first.table.of(kind).sum() >= _LEAST_ROWS]
    rooflines, processes, power_processes = {}, {}, {}
    for kind in (None, *kinds):
        own = np.ones(len(times), bool) if kind is None else first.table.of(kind)
        table, name = first.table.rows(own), ANY if kind is None else kind.value
        causes, seen = causes_of(table, name), view(table, kind)
        rooflines[name] = _roofline(causes, times[own])
        rest = np.log(times[own] / (causes @ rooflines[name].T))
        by_causes = kind in _BY_CAUSES
        processes[name] = constant_process(seen, rest) if by_causes else fit_gaussian_process(seen, rest)
        if powers is not None:
            power_processes[name] = fit_gaussian_process(seen, powers[own])
    beside_s = _beside_s(dataset)
    return LayerPredictor(dataset.provenance, clocks, rooflines, processes, power_processes, beside_s)


def _roofline(causes: Array, times_s: Array) -> Array:
    """Return what each cause costs at each clock: not below 0, of the least squares of relative errors."""
    from scipy.optimize import nnls

    causes = causes * ((causes > 0.0).sum(axis=0) >= _LEAST_PRICED)
    sizes = np.maximum(causes.mean(axis=0), 1e-30)
    found = [nnls(causes / sizes / own[:, np.newaxis], np.ones(len(own)))[0] / sizes for own in times_s.T]
    least = np.zeros(causes.shape[1])
    least[0] = 1e-9
    return np.asarray(np.maximum(np.array(found), least), np.float64)


def _check(sweeps: Sequence[Rows]) -> None:
    first = sweeps[0]
    if len(first.seconds) < _LEAST_ROWS:
        raise ValueError(f"only {len(first.seconds)} steps were measured; at least {_LEAST_ROWS} are needed")
    for rows in sweeps[1:]:
        if (
            rows.table.values.shape != first.table.values.shape
            or (rows.table.values != first.table.values).any()
        ):
            raise ValueError("not all steps were measured at every clock: let the calibration finish")


def _beside_s(dataset: Dataset) -> Array:
    """Fit what runs take beyond their steps: not below 0, of the least squares relative to the runs."""
    from scipy.optimize import nnls

    runs_s = np.array([one.run_s for one in dataset.measured])
    gaps_s = runs_s - [one.seconds.sum() for one in dataset.measured]
    causes = np.array([besides(one.table) for one in dataset.measured])
    sizes = np.maximum(causes.mean(axis=0), 1e-30)
    return np.asarray(nnls(causes / sizes / runs_s[:, np.newaxis], gaps_s / runs_s)[0] / sizes, np.float64)
