"""How far off predictions are, as it came out on networks that were left out of the fit.

A standard deviation is made as wide as it must be to hold 68 % of what was left out, whatever the shape of
the errors (conformal prediction). Theirs have longer tails than a Gaussian's, so how wide a band must be to
hold 90 % is found likewise. A run's doubt is made of its steps': a part of each step's error is its own and
averages out, the rest all steps of a network share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ONE_DEVIATION, _NEARLY_ALL = 0.6827, 0.9
_LEAST = 0.05
_SHARED = 0.3
"""How much of a step's squared error its neighbours share (assumed): networks of few steps do not tell."""


@dataclass(frozen=True, slots=True)
class RunDoubt:
    """What the doubt about a whole run is made of.

    Args:
        factor: how much wider than its steps say a standard deviation must be.
        tail: within how many of them 90 % lie; 1.645 for a Gaussian.
    """

    factor: float = 1.0
    tail: float = 1.645

    def of_runs(self, seconds: Array, spread: Array) -> Array:
        """Return the standard deviation of the logarithm of sums over the last axis."""
        own, common = _parts(seconds, spread)
        answer: Array = self.factor * np.sqrt((1.0 - _SHARED) * own + _SHARED * common)
        return answer


ASSUMED = RunDoubt()
"""Where there are too few networks to leave any out."""


def run_doubt(parts: list[tuple[Array, Array]], errors: Array) -> RunDoubt:
    """Fit to runs that were left out.

    Args:
        parts: seconds and doubts of the steps of each run.
        errors: of the logarithm of each run's time.
    """
    ratios = errors / [float(ASSUMED.of_runs(*one)) for one in parts]
    factor = widening(ratios)
    return RunDoubt(factor, max(1.0, widening(ratios, _NEARLY_ALL) / factor))


def widening(ratios: Array, share: float = _ONE_DEVIATION) -> float:
    """Return by what doubts must be multiplied to hold a share of errors.

    Args:
        ratios: errors over doubts, of what was left out.
        share: of the errors.
    """
    level = min(1.0, share * (1.0 + 1.0 / len(ratios)))
    return max(_LEAST, float(np.quantile(np.abs(ratios), level, method="higher")))


def _parts(seconds: Array, spread: Array) -> tuple[Array, Array]:
    """Return the relative variances of sums whose errors are each one's own, and all shared."""
    errors, total = seconds * spread, seconds.sum(axis=-1)
    return (errors**2).sum(axis=-1) / total**2, errors.sum(axis=-1) ** 2 / total**2
