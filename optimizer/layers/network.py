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

FURTHEST = 8
"""Batches that are this many times the largest that was fitted are foretold; beyond, nothing is."""
_DOUBT_BEYOND = 0.25
"""What a batch e times the largest that was fitted adds to the doubt (assumed): nothing out there tells."""


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
        largest_batch: that the predictor was fitted to; what is larger has a wider spread. None: not known.
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
    largest_batch: int | None = None

    @property
    def beyond(self) -> tuple[int, ...]:
        """The batches that are larger than any that the predictor was fitted to."""
        most = self.largest_batch
        return () if most is None else tuple(batch for batch in self.batches if batch > most)

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
        ValueError: a batch below 1 or more than `FURTHEST` times the largest that the predictor was fitted
            to, or clocks that do not go with the predictor.
    """
    most = predictor.largest_batch
    _check(batches, most)
    one = features(steps)
    predicted = predictor.predict(one.at(batches), clocks_mhz)
    shape = (len(batches), len(steps), -1)
    seconds = predicted.seconds.reshape(shape).swapaxes(1, 2)
    watts = None if predicted.watts is None else predicted.watts.reshape(shape).swapaxes(1, 2)
    spread = predictor.doubt.of_runs(seconds, predicted.spread.reshape(shape).swapaxes(1, 2))
    unknown = {step.leader.operator for step in steps if step.kind is Kind.UNKNOWN}
    return NetworkPrediction(
        steps=tuple(steps),
        batches=tuple(batches),
        clocks_mhz=tuple(clocks_mhz),
        seconds=seconds,
        watts=watts,
        beside_s=np.array([predictor.besides_s(one.at((batch,))) for batch in batches]),
        spread=np.hypot(spread, _doubt_beyond(batches, most)[:, np.newaxis]),
        tail=predictor.doubt.tail,
        guessed=tuple(sorted({*predicted.guessed, *unknown} - {Kind.UNKNOWN.value})),
        largest_batch=most,
    )


def _check(batches: Sequence[int], most: int | None) -> None:
    if min(batches) < 1:
        raise ValueError(f"batches must be 1 or more, got {min(batches)}")
    if most is not None and max(batches) > FURTHEST * most:
        raise ValueError(
            f"batches of {max(batches)} are too far from those that the predictor was fitted to, at most "
            f"{most}: it says nothing of more than {FURTHEST * most}"
        )


def _doubt_beyond(batches: Sequence[int], most: int | None) -> Array:
    """Return by how much batches out of reach are doubted, as a standard deviation of the logarithm."""
    times = np.array(batches, float) / (np.inf if most is None else most)
    answer: Array = _DOUBT_BEYOND * np.log(np.maximum(times, 1.0))
    return answer
