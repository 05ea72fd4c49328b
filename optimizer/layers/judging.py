"""Holding predictors against networks that they were not fitted to, in the layout of NeuralPower's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import Dataset, MeasuredNetwork
from optimizer.layers.fusion import Kind
from optimizer.layers.neuralpower import NeuralPower, rows_of
from optimizer.layers.paleo import Paleo
from optimizer.layers.predictor import LayerPredictor

Array = NDArray[np.float64]

PUBLISHED = {
    Kind.CONVOLUTION: (0.3997, 0.5829, 0.0735),
    Kind.FULLY_CONNECTED: (0.4192, 0.7376, 0.0900),
    Kind.POOLING: (0.1141, 0.7991, 0.0616),
}
"""RMSPE of NeuralPower's runtime, Paleo's runtime and NeuralPower's power (Titan X, TensorFlow)."""

PUBLISHED_NETWORKS = (0.8824, 0.8834, 0.9721)
"""NeuralPower's accuracy, 1 - RMSPE, over five networks: runtime, power, energy."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a model says of the steps of one network at one batch size; `extra_s` is not of any step."""

    seconds: Array
    watts: Array | None
    extra_s: float = 0.0

    @property
    def run_s(self) -> float:
        """The whole batch."""
        return float(self.seconds.sum()) + self.extra_s

    @property
    def energy_j(self) -> float | None:
        """The whole batch; time beyond the steps draws their mean power."""
        if self.watts is None or not self.seconds.any():
            return None
        return float(self.seconds @ self.watts) / float(self.seconds.sum()) * self.run_s


@dataclass(frozen=True, slots=True)
class Held:
    """How much of what was measured lay as near to the prediction as was stated.

    Args:
        count: of measurements; those of one network go astray together.
        one: share within one standard deviation; 0.68 is meant.
        two: within two; 0.95 of a Gaussian's.
        band: within the band for 90 %; None for steps, for which none is stated.
    """

    count: int
    one: float
    two: float
    band: float | None = None


Guesser = Callable[[MeasuredNetwork], Guess]


@dataclass(frozen=True, slots=True)
class NetworkScore:
    """One network at one batch size: relative errors, e.g. 0.1 for 10 % too much; None: cannot be told."""

    network: str
    batch: int
    clock_mhz: int | None
    run_error: float
    power_error: float | None
    energy_error: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did.

    Args:
        layers: RMSPE of runtime and of power by kind of the paper; None where nothing was measured.
        networks: each network at each batch size.
    """

    layers: Mapping[Kind, tuple[float, float | None]]
    networks: tuple[NetworkScore, ...]

    def accuracy(self, what: str) -> float | None:
        """Return 1 - RMSPE over networks of `run_error`, `power_error` or `energy_error`."""
        errors = [getattr(one, what) for one in self.networks]
        return None if None in errors or not errors else 1.0 - _root_mean_square(np.array(errors))


def judge(held_out: Dataset, guesser: Guesser) -> Score:
    """Compare guesses with what was measured."""
    guesses = [(one, guesser(one)) for one in held_out.measured]
    layers = {kind: _of_kind(guesses, kind) for kind in PUBLISHED}
    return Score(
        {k: v for k, v in layers.items() if v is not None}, tuple(_network(*pair) for pair in guesses)
    )


def held(held_out: Dataset, predictor: LayerPredictor) -> dict[str, Held]:
    """Return how well stated doubts hold: of `runs`, and of the steps of each kind by its name."""
    steps: dict[str, list[Array]] = {}
    runs = []
    for one in held_out.measured:
        said = predictor.predict(one.table, () if one.clock_mhz is None else (one.clock_mhz,))
        seconds, spread = said.seconds[:, 0], said.spread[:, 0]
        astray = np.log(seconds / one.seconds) / spread
        for kind in set(one.table.kinds):
            steps.setdefault(kind.value, []).append(astray[one.table.of(kind)])
        run_error = np.log((seconds.sum() + predictor.besides_s(one.table)) / one.run_s)
        runs.append(run_error / float(predictor.doubt.of_runs(seconds, spread)))
    of_steps = {kind: _held(np.concatenate(found)) for kind, found in sorted(steps.items())}
    return {"runs": _held(np.array(runs), predictor.doubt.tail), **of_steps}


def _held(astray: Array, tail: float | None = None) -> Held:
    one, two = (float(np.mean(np.abs(astray) < width)) for width in (1.0, 2.0))
    return Held(len(astray), one, two, None if tail is None else float(np.mean(np.abs(astray) < tail)))


def ours(predictor: LayerPredictor) -> Guesser:
    """Guess by our predictor."""

    def guess(one: MeasuredNetwork) -> Guess:
        clocks = () if one.clock_mhz is None else (one.clock_mhz,)
        predicted = predictor.predict(one.table, clocks)
        watts = None if predicted.watts is None else predicted.watts[:, 0]
        return Guess(predicted.seconds[:, 0], watts, predictor.besides_s(one.table))

    return guess


def plain(model: NeuralPower | Paleo) -> Guesser:
    """Guess by one of the published models: the sum of the layers."""
    return lambda one: Guess(model.seconds(one.table), model.watts(one.table))


def _of_kind(guesses: list[tuple[MeasuredNetwork, Guess]], kind: Kind) -> tuple[float, float | None] | None:
    times, powers = [], []
    for one, guess in guesses:
        rows = rows_of(one.table, kind)
        times.append(guess.seconds[rows] / one.seconds[rows] - 1.0)
        if one.watts is not None and guess.watts is not None:
            powers.append(guess.watts[rows] / one.watts[rows] - 1.0)
    errors = np.concatenate([np.empty(0), *times])
    if not len(errors):
        return None
    return _root_mean_square(errors), _root_mean_square(np.concatenate(powers)) if powers else None


def _network(one: MeasuredNetwork, guess: Guess) -> NetworkScore:
    energy_error = power_error = None
    if one.energy_j is not None and guess.energy_j is not None:
        energy_error = guess.energy_j / one.energy_j - 1.0
        power_error = (guess.energy_j / guess.run_s) / (one.energy_j / one.run_s) - 1.0
    run_error = guess.run_s / one.run_s - 1.0
    return NetworkScore(one.network, one.batch, one.clock_mhz, run_error, power_error, energy_error)


def _root_mean_square(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))
