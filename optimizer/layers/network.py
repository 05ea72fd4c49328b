"""A whole network from its steps: runtime, power and energy at any batch size and clock, by layer too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.features import features
from optimizer.layers.fusion import Kind, Step
from optimizer.layers.predictor import LayerPredictor

Array = NDArray[np.float64]

_BOTTLENECK = 0.5
"""The steps that together take this part of the time are the bottlenecks, the longest first."""


@dataclass(frozen=True, slots=True)
class NetworkPrediction:
    """What a network takes.

    Args:
        steps: of the network.
        batches: sizes asked for.
        clocks_mhz: asked for; () where the predictor knows none.
        seconds: `[batches, clocks, steps]`, one clock where there are none.
        watts: likewise; None where power was never measured.
        beside_s: what a batch takes beyond its steps, `[batches]`.
        spread: standard deviation of the logarithm of a batch's time, `[batches, clocks]`.
        tail: within how many standard deviations 90 % lie.
        guessed: kinds of steps that were judged by work and traffic alone.
    """

    steps: tuple[Step, ...]
    batches: tuple[int, ...]
    clocks_mhz: tuple[float, ...]
    seconds: Array
    watts: Array | None
    beside_s: Array
    spread: Array
    tail: float
    guessed: tuple[str, ...]

    @property
    def run_s(self) -> Array:
        """Seconds of a batch, `[batches, clocks]`."""
        answer: Array = self.seconds.sum(axis=2) + self.beside_s[:, np.newaxis]
        return answer

    @property
    def energy_j(self) -> Array | None:
        """Joules of a batch, `[batches, clocks]`; time beyond the steps draws the mean power of the steps."""
        if self.watts is None:
            return None
        answer: Array = (self.seconds * self.watts).sum(axis=2) / self.seconds.sum(axis=2) * self.run_s
        return answer

    @property
    def power_w(self) -> Array | None:
        """Mean power of a batch, `[batches, clocks]`."""
        return None if self.energy_j is None else self.energy_j / self.run_s

    def bottlenecks(self, batch: int, clock: int) -> frozenset[int]:
        """Return the places of the steps that take half of the time at a batch and clock, given by place."""
        seconds = self.seconds[batch, clock]
        order = np.argsort(-seconds)
        enough = int(np.searchsorted(np.cumsum(seconds[order]), _BOTTLENECK * seconds.sum())) + 1
        return frozenset(order[:enough].tolist())


def predict_network(
    predictor: LayerPredictor, steps: Sequence[Step], batches: Sequence[int], clocks_mhz: Sequence[float] = ()
) -> NetworkPrediction:
    """Predict a network that was counted at batch 1.

    Raises:
        ValueError: a batch below 1, or clocks that do not go with the predictor.
    """
    if min(batches) < 1:
        raise ValueError(f"batches must be 1 or more, got {min(batches)}")
    one = features(steps)
    predicted = predictor.predict(one.at(batches), clocks_mhz)
    shape = (len(batches), len(steps), -1)
    seconds = predicted.seconds.reshape(shape).swapaxes(1, 2)
    watts = None if predicted.watts is None else predicted.watts.reshape(shape).swapaxes(1, 2)
    unknown = {step.leader.operator for step in steps if step.kind is Kind.UNKNOWN}
    return NetworkPrediction(
        steps=tuple(steps),
        batches=tuple(batches),
        clocks_mhz=tuple(clocks_mhz),
        seconds=seconds,
        watts=watts,
        beside_s=np.array([predictor.besides_s(one.at((batch,))) for batch in batches]),
        spread=predictor.doubt.of_runs(seconds, predicted.spread.reshape(shape).swapaxes(1, 2)),
        tail=predictor.doubt.tail,
        guessed=tuple(sorted({*predicted.guessed, *unknown} - {Kind.UNKNOWN.value})),
    )
