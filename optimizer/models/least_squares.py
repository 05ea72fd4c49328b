"""Weighted linear least squares that forgets, held by prior beliefs where data are missing.

In plain numbers: for so few coefficients arrays cost more than the arithmetic. Of the normal equations, which
are symmetric, rows from the diagonal on are kept, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_JITTER = 1e-12


class ForgettingLeastSquares:
    """Fits y = x . theta, theta not negative, over observations whose weight decays.

    Args:
        size: number of coefficients.
        memory: what weight a past observation keeps with each call of `forget`.
    """

    def __init__(self, size: int, memory: float) -> None:
        self._memory = memory
        self._gram = [0.0] * (size * (size + 1) // 2)
        self._moment = [0.0] * size

    def forget(self, share: float | None = None) -> None:
        """Let everything observed so far count less: by the memory, or to the share given."""
        kept = self._memory if share is None else share
        self._gram = [kept * value for value in self._gram]
        self._moment = [kept * value for value in self._moment]

    def export_state(self) -> dict[str, object]:
        """Return what was observed, for `import_state`: the whole matrix."""
        rows, size = _rows(self._gram, len(self._moment)), len(self._moment)
        gram = [[rows[min(i, j)][abs(i - j)] for j in range(size)] for i in range(size)]
        return {"gram": gram, "moment": self._moment.copy()}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        gram = [[float(value) for value in row] for row in state["gram"]]
        moment = [float(value) for value in state["moment"]]
        size = len(self._moment)
        if [len(row) for row in (*gram, moment)] != [size] * (size + 1):
            raise ValueError(f"expected {size} coefficients, got {len(moment)}")
        if not all(math.isfinite(value) for row in (*gram, moment) for value in row):
            raise ValueError("the saved observations are not finite")
        self._gram = [value for at, row in enumerate(gram) for value in row[at:]]
        self._moment = moment

    def observe(self, x: Sequence[float], y: float, weight: float = 1.0) -> None:
        """Add an observation. Its residual counts relative to y, which must not be 0."""
        _add(self._gram, self._moment, [value / y for value in x], 1.0, weight)

    def solve(self, beliefs: Sequence[tuple[Sequence[float], float]], weight: float) -> tuple[float, ...]:
        """Return theta.

        Args:
            beliefs: pairs (x, y) expected to hold as x . theta = y; scale them so that a residual of 1 is as
                bad as an observation that is off by all of its y.
            weight: of each belief, compared to 1 for a fresh observation.
        """
        gram, moment = self._gram.copy(), self._moment.copy()
        for x, y in beliefs:
            _add(gram, moment, x, y, weight)
        rows = _rows(gram, len(moment))
        scales = [1.0 / math.sqrt(max(row[0], _JITTER)) for row in rows]
        for at, (row, scale) in enumerate(zip(rows, scales, strict=True)):
            row[:] = [value * scale * other for value, other in zip(row, scales[at:], strict=True)]
            row[0] += _JITTER
        solved = _solved(rows, [value * scale for value, scale in zip(moment, scales, strict=True)])
        return tuple([max(0.0, value * scale) for value, scale in zip(solved, scales, strict=True)])


def _add(gram: list[float], moment: list[float], x: Sequence[float], y: float, weight: float) -> None:
    """Add a weighted observation to the normal equations."""
    place = 0
    for at, value in enumerate(x):
        weighted = weight * value
        moment[at] += weighted * y
        for other in x[at:]:
            gram[place] += weighted * other
            place += 1


def _rows(gram: list[float], size: int) -> list[list[float]]:
    """Return the rows of the upper triangle, each from its diagonal on."""
    starts = [at * size - at * (at - 1) // 2 for at in range(size + 1)]
    return [gram[starts[at] : starts[at + 1]] for at in range(size)]


def _solved(rows: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive definite system by elimination. Both arguments are used up.

    Raises ZeroDivisionError for one that is singular.
    """
    for at, pivot in enumerate(rows):
        for below in range(1, len(pivot)):
            share = pivot[below] / pivot[0]
            row = rows[at + below]
            for place in range(below, len(pivot)):
                row[place - below] -= share * pivot[place]
            right[at + below] -= share * right[at]
    for at in reversed(range(len(rows))):
        row = rows[at]
        for beyond in range(1, len(row)):
            right[at] -= row[beyond] * right[at + beyond]
        right[at] /= row[0]
    return right
