"""Weighted linear least squares that forgets, held by prior beliefs where data are missing.

In plain numbers, and written out for the four coefficients that all who use it have: for so few, arrays cost
more than the arithmetic, and so do loops. Of the normal equations, which are symmetric, rows from the
diagonal on are kept, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Four: TypeAlias = tuple[float, float, float, float]

_JITTER = 1e-12
_SIZE = 4
_NUMBERS = _SIZE * (_SIZE + 1) // 2


class ForgettingLeastSquares:
    """Fits y = x . theta, theta not negative, over observations whose weight decays.

    Args:
        memory: what weight a past observation keeps with each call of `forget`.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._gram = [0.0] * _NUMBERS
        self._moment = [0.0] * _SIZE

    def forget(self, share: float | None = None) -> None:
        """Let everything observed so far count less: by the memory, or to the share given."""
        kept = self._memory if share is None else share
        self._gram = [kept * value for value in self._gram]
        self._moment = [kept * value for value in self._moment]

    def export_state(self) -> dict[str, object]:
        """Return what was observed, for `import_state`: the whole matrix."""
        rows = _rows(self._gram)
        gram = [[rows[min(i, j)][abs(i - j)] for j in range(_SIZE)] for i in range(_SIZE)]
        return {"gram": gram, "moment": self._moment.copy()}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        gram = [[float(value) for value in row] for row in state["gram"]]
        moment = [float(value) for value in state["moment"]]
        if [len(row) for row in (*gram, moment)] != [_SIZE] * (_SIZE + 1):
            raise ValueError(f"expected {_SIZE} coefficients, got {len(moment)}")
        if not all(math.isfinite(value) for row in (*gram, moment) for value in row):
            raise ValueError("the saved observations are not finite")
        self._gram = [value for at, row in enumerate(gram) for value in row[at:]]
        self._moment = moment

    def observe(self, x: Four, y: float, weight: float = 1.0) -> None:
        """Add an observation. Its residual counts relative to y, which must not be 0."""
        a, b, c, d = x
        _add(self._gram, self._moment, (a / y, b / y, c / y, d / y), 1.0, weight)

    def solve(self, beliefs: Iterable[tuple[Four, float]], weight: float) -> Four:
        """Return theta.

        Args:
            beliefs: pairs (x, y) expected to hold as x . theta = y; scale them so that a residual of 1 is as
                bad as an observation that is off by all of its y.
            weight: of each belief, compared to 1 for a fresh observation.
        """
        gram, moment = self._gram.copy(), self._moment.copy()
        for x, y in beliefs:
            _add(gram, moment, x, y, weight)
        scales = _scales(gram)
        _scale(gram, scales)
        solved = _solved(gram, [value * scale for value, scale in zip(moment, scales, strict=True)])
        a, b, c, d = [max(0.0, value * scale) for value, scale in zip(solved, scales, strict=True)]
        return a, b, c, d


def _add(gram: list[float], moment: list[float], x: Four, y: float, weight: float) -> None:
    """Add a weighted observation to the normal equations."""
    a, b, c, d = x
    wa, wb, wc, wd = weight * a, weight * b, weight * c, weight * d
    aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = gram
    gram[:4] = aa + wa * a, ab + wa * b, ac + wa * c, ad + wa * d
    gram[4:7] = bb + wb * b, bc + wb * c, bd + wb * d
    gram[7:] = cc + wc * c, cd + wc * d, dd + wd * d
    ay, by, cy, dy = moment
    moment[:] = ay + wa * y, by + wb * y, cy + wc * y, dy + wd * y


def _rows(gram: Sequence[float]) -> list[Sequence[float]]:
    """Return the rows of the upper triangle, each from its diagonal on."""
    return [gram[:4], gram[4:7], gram[7:9], gram[9:]]


def _scales(gram: Sequence[float]) -> Four:
    """Return what brings each number on the diagonal to 1."""
    a, b, c, d = [1.0 / math.sqrt(max(gram[at], _JITTER)) for at in (0, 4, 7, 9)]
    return a, b, c, d


def _scale(gram: list[float], scales: Four) -> None:
    """Make the equations those for coefficients over these scales, and keep them from being singular."""
    a, b, c, d = scales
    aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = gram
    gram[:4] = aa * a * a + _JITTER, ab * a * b, ac * a * c, ad * a * d
    gram[4:7] = bb * b * b + _JITTER, bc * b * c, bd * b * d
    gram[7:] = cc * c * c + _JITTER, cd * c * d, dd * d * d + _JITTER


def _solved(gram: Sequence[float], right: Sequence[float]) -> Four:
    """Solve a symmetric positive definite system by elimination.

    Raises ZeroDivisionError for one that is singular.
    """
    aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = gram
    a, b, c, d = right
    of_b, of_c, of_d = ab / aa, ac / aa, ad / aa
    bb, bc, bd, b = bb - of_b * ab, bc - of_b * ac, bd - of_b * ad, b - of_b * a
    cc, cd, c = cc - of_c * ac, cd - of_c * ad, c - of_c * a
    dd, d = dd - of_d * ad, d - of_d * a
    of_c, of_d = bc / bb, bd / bb
    cc, cd, c = cc - of_c * bc, cd - of_c * bd, c - of_c * b
    dd, d = dd - of_d * bd, d - of_d * b
    of_d = cd / cc
    d = (d - of_d * c) / (dd - of_d * cd)
    c = (c - cd * d) / cc
    b = (b - bc * c - bd * d) / bb
    return (a - ab * b - ac * c - ad * d) / aa, b, c, d
