"""Weighted linear least squares that forgets, held by prior beliefs where data are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]

_JITTER = 1e-12


class ForgettingLeastSquares:
    """Fits y = x . theta, theta not negative, over observations whose weight decays.

    Args:
        size: number of coefficients.
        memory: what weight a past observation keeps with each call of `forget`.
    """

    def __init__(self, size: int, memory: float) -> None:
        self._memory = memory
        self._gram = np.zeros((size, size))
        self._moment = np.zeros(size)
        self._jitter = _JITTER * np.eye(size)

    def forget(self, share: float | None = None) -> None:
        """Let everything observed so far count less: by the memory, or to the share given."""
        kept = self._memory if share is None else share
        self._gram *= kept
        self._moment *= kept

    def export_state(self) -> dict[str, object]:
        """Return what was observed, for `import_state`."""
        return {"gram": self._gram.tolist(), "moment": self._moment.tolist()}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        gram, moment = np.array(state["gram"], float), np.array(state["moment"], float)
        if gram.shape != self._gram.shape or moment.shape != self._moment.shape:
            raise ValueError(f"expected {self._moment.size} coefficients, got {moment.size}")
        if not (np.isfinite(gram).all() and np.isfinite(moment).all()):
            raise ValueError("the saved observations are not finite")
        self._gram, self._moment = gram, moment

    def observe(self, x: ArrayLike, y: ArrayLike, weight: ArrayLike = 1.0) -> None:
        """Add an observation, or one a row of x. Residuals count relative to y, which must not be 0."""
        rows = np.atleast_2d(np.divide(np.asarray(x).T, y).T)
        weighted = np.multiply(rows.T, weight)
        self._gram += weighted @ rows
        self._moment += weighted.sum(axis=1)

    def solve(self, beliefs: Sequence[tuple[Sequence[float], float]], weight: float) -> Vector:
        """Return theta.

        Args:
            beliefs: pairs (x, y) expected to hold as x . theta = y; scale them so that a residual of 1 is as
                bad as an observation that is off by all of its y.
            weight: of each belief, compared to 1 for a fresh observation.
        """
        rows = np.array([x for x, _ in beliefs])
        gram = self._gram + weight * (rows.T @ rows)
        moment = self._moment + weight * (np.array([y for _, y in beliefs]) @ rows)
        scale = 1.0 / np.sqrt(np.maximum(gram.diagonal(), _JITTER))
        scaled = gram * scale[:, None] * scale + self._jitter
        theta: Vector = np.maximum(0.0, scale * np.linalg.solve(scaled, scale * moment))
        return theta
