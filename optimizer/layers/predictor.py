"""Our predictor: for each kind of step a regression in logarithms, with its doubt.

The time of a step is first that of a roofline: so much for the step, for each operation, for each byte. That
holds far away too: twice the work, twice the time. What a step takes over that, and its power, are products
of causes, so their logarithms are fitted: by a straight line, and around it a Gaussian process, which learns
e.g. how well windows, groups and half-filled blocks of channels suit the processor. Fused followers and
groups are among what it sees. Steps of kinds that were measured too rarely, and operators that nobody knows,
are judged by their arithmetic and traffic alone, and named.

Where clocks were set, every step was measured at the same few clocks; between them the logarithms go straight
against the logarithm of the clock, and beyond them time goes on as between the last two while power stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import Dataset, Rows
from optimizer.layers.features import FeatureTable
from optimizer.layers.fusion import Kind
from optimizer.layers.gaussian import GaussianProcess, fit_gaussian_process
from optimizer.layers.sharing import step_watts
from optimizer.layers.view import view

Array = NDArray[np.float64]

_LEAST_ROWS = 25
_CACHES_BYTES = (2**18, 2**20, 2**22, 2**24, 2**26)
"""Sizes between which those of a processor's caches lie; what a byte costs beyond each is fitted."""
_ANY = "any"
_FLOWING = frozenset(
    kind.value
    for kind in (
        Kind.POOLING,
        Kind.WHOLE_POOLING,
        Kind.DEPTHWISE,
        Kind.ELEMENTWISE,
        Kind.MOVE,
        Kind.NORMALISATION,
    )
)
"""Kinds that are limited by what flows."""
_PRODUCTS = frozenset({Kind.FULLY_CONNECTED.value})
_WINDOWED = frozenset(
    kind.value for kind in (Kind.POOLING, Kind.WHOLE_POOLING, Kind.CONVOLUTION, Kind.DEPTHWISE)
)


@dataclass(frozen=True, slots=True)
class Predicted:
    """Rows as in the table, columns as the clocks asked for (one where there are none).

    Args:
        seconds: of each step.
        spread: standard deviation of the logarithm of `seconds`: 0.1 is about 10 %.
        watts: None where power was never measured.
        guessed: operators' kinds that were never measured enough: judged by work and traffic alone.
    """

    seconds: Array
    spread: Array
    watts: Array | None
    guessed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerPredictor:
    """A fitted predictor.

    Args:
        provenance: of the dataset that it was fitted to.
        clocks_mhz: at which steps were measured; () where no clock was set.
        rooflines: by kind, and `any`: seconds of a step, and per operation, byte that flows and byte of
            weights, and what else costs time in a kind, `[clocks, causes]`.
        processes: likewise; of the logarithm of the time over the roofline's at each clock.
        power_processes: likewise; of the logarithm of the power. Empty where power was not measured.
        beside_s: what a run takes beyond its steps: once, for each step, and for each byte that is turned
            from one layout to another.
    """

    provenance: Mapping[str, Any]
    clocks_mhz: tuple[int, ...]
    rooflines: Mapping[str, Array]
    processes: Mapping[str, GaussianProcess]
    power_processes: Mapping[str, GaussianProcess]
    beside_s: Array

    @property
    def has_power(self) -> bool:
        """Whether power was measured."""
        return bool(self.power_processes)

    @property
    def simulated(self) -> bool:
        """Whether it was fitted to a simulated device."""
        return bool(self.provenance["simulated"])

    def predict(self, table: FeatureTable, clocks_mhz: Sequence[float] = ()) -> Predicted:
        """Predict every row at every clock.

        Raises:
            ValueError: clocks are asked for and none was measured, or the other way round.
        """
        if bool(len(clocks_mhz)) != bool(self.clocks_mhz):
            known = f"{self.clocks_mhz[0]} to {self.clocks_mhz[-1]} MHz" if self.clocks_mhz else "none"
            raise ValueError(f"this predictor was fitted at clocks: {known}; asked for {list(clocks_mhz)}")
        distinct, place = _distinct(table)
        times, spread, powers, guessed = self._logs(distinct)
        if len(clocks_mhz):
            times, spread = (
                self._at(times, clocks_mhz, beyond=True),
                self._at(spread, clocks_mhz, beyond=False),
            )
            powers = self._at(powers, clocks_mhz, beyond=False) if self.has_power else powers
        watts = np.exp(powers)[place] if self.has_power else None
        return Predicted(np.exp(times)[place], spread[place], watts, guessed)

    def besides_s(self, table: FeatureTable) -> float:
        """Return what a run takes beyond its steps, given all steps of a network at one batch size."""
        return float(_besides(table) @ self.beside_s)

    def _logs(self, table: FeatureTable) -> tuple[Array, Array, Array, tuple[str, ...]]:
        """Return times, their spread and powers at every measured clock, and the kinds that are guessed."""
        shape = len(table.kinds), max(1, len(self.clocks_mhz))
        times, spread, powers = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        guessed = []
        for kind in set(table.kinds):
            rows, known = table.of(kind), kind.value in self.processes
            guessed += [] if known else [kind.value]
            name, own = kind.value if known else _ANY, table.rows(rows)
            seen = view(own, kind if known else None)
            means, spread[rows] = self.processes[name].predict(seen)
            times[rows] = means + np.log(_causes(own, name) @ self.rooflines[name].T)
            if self.has_power:
                powers[rows], _ = self.power_processes[name].predict(seen)
        return times, spread, powers, tuple(sorted(guessed))

    def _at(self, values: Array, clocks_mhz: Sequence[float], *, beyond: bool) -> Array:
        """Interpolate columns between clocks; `beyond` the last ones go on straight or stay."""
        known, wanted = np.log(self.clocks_mhz), np.log(np.asarray(clocks_mhz, float))
        if len(known) == 1:
            return np.repeat(values, len(wanted), axis=1)
        left = np.clip(np.searchsorted(known, wanted) - 1, 0, len(known) - 2)
        part = (wanted - known[left]) / (known[left + 1] - known[left])
        part = part if beyond else np.clip(part, 0.0, 1.0)
        answer: Array = values[:, left] * (1.0 - part) + values[:, left + 1] * part
        return answer


def fit_predictor(dataset: Dataset) -> LayerPredictor:
    """Fit to a dataset; power too where steps or at least whole networks were metered (see `sharing`).

    Needs SciPy (`pip install 'boulton[study]'`).

    Raises:
        ValueError: the same steps were not measured at every clock, or there are hardly any.
    """
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
        table, name = first.table.rows(own), _ANY if kind is None else kind.value
        causes, seen = _causes(table, name), view(table, kind)
        rooflines[name] = _roofline(causes, times[own])
        processes[name] = fit_gaussian_process(seen, np.log(times[own] / (causes @ rooflines[name].T)))
        if powers is not None:
            power_processes[name] = fit_gaussian_process(seen, powers[own])
    beside_s = _beside_s(dataset)
    return LayerPredictor(dataset.provenance, clocks, rooflines, processes, power_processes, beside_s)


def _causes(table: FeatureTable, name: str) -> Array:
    """Return what costs time in steps of a kind: the step, operations, bytes, and what caches and layout add.

    Poolings are limited by what flows, fully connected layers by their weights: of those, the bytes that a
    cache of each size does not hold cost more. Windows over channels that lie in no blocks cost more an
    operation, and most where the engine takes one number at a time; so do convolutions in groups.
    """
    column = table.column
    flowing, weights = column("input_bytes") + column("output_bytes"), column("weight_bytes")
    causes = [np.ones(len(flowing)), column("operations"), flowing, weights]
    if name in _PRODUCTS | _FLOWING:
        network = column("network_bytes") + column("network_weight_bytes")
        since = column("since_bytes") + column("since_weight_bytes")
        causes += _beyond(flowing, since) if name in _FLOWING else _beyond(weights, network)
    if name in _WINDOWED:
        plain = column("operations") * (1.0 - column("blocked"))
        causes += [plain * (1.0 - column("scalar")), plain * column("scalar")]
    if name == Kind.CONVOLUTION.value:
        causes.append(column("operations") * (column("groups") > 1))
    return np.column_stack(causes)


def _beyond(moved: Array, between: Array) -> list[Array]:
    """Return the bytes that each cache does not hold until they are used again."""
    return [moved * np.maximum(0.0, 1.0 - cache / np.maximum(between, 1.0)) for cache in _CACHES_BYTES]


def _roofline(causes: Array, times_s: Array) -> Array:
    """Return what each cause costs at each clock: not below 0, of the least squares of relative errors."""
    from scipy.optimize import nnls

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
    causes = np.array([_besides(one.table) for one in dataset.measured])
    sizes = np.maximum(causes.mean(axis=0), 1e-30)
    return np.asarray(nnls(causes / sizes / runs_s[:, np.newaxis], gaps_s / runs_s)[0] / sizes, np.float64)


def _besides(table: FeatureTable) -> Array:
    return np.array([1.0, len(table.kinds), table.column("turned_bytes").sum()])


def _distinct(table: FeatureTable) -> tuple[FeatureTable, NDArray[np.int64]]:
    """Return each different row once, and where each row's is: networks repeat their layers."""
    kinds = list(Kind)
    numbers = np.array([kinds.index(kind) for kind in table.kinds], float)
    keyed = np.column_stack([numbers, table.values])
    _, first, place = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
    return table.rows(first), place.reshape(-1)
