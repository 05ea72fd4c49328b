"""How much of the way from an expected time to the worst, or the best, possible one the truth went."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FIRST_SHARE = 0.5
_FIRST_WAY = 0.2
"""As shares of the expected time: before anything was seen, as if ways of a fifth had gone half."""
_MEMORY = 0.98


class Ways:
    """The share over all first visits, weighted by the length of their ways; later ones count more."""

    def __init__(self) -> None:
        self._way = _FIRST_WAY
        self._went = _FIRST_SHARE * _FIRST_WAY

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self._went / self._way

    def export_state(self) -> list[float]:
        """Return what was learned, for `import_state`."""
        return [self._way, self._went]

    def import_state(self, state: Sequence[float]) -> None:
        """Start from an exported state. Raises ValueError or TypeError for anything else."""
        way, went = (float(number) for number in state)
        if not 0.0 <= went <= way < math.inf or way == 0.0:
            raise ValueError(f"expected a way and how far it went, got {state}")
        self._way, self._went = way, went

    def observe(self, way: float, went: float, unknown: float) -> None:
        """Take in a visit, which went from 0 to `way`; `unknown`, from 0 to 1, is how much it counts."""
        self._way = _MEMORY * self._way + unknown * way
        self._went = _MEMORY * self._went + unknown * min(way, max(0.0, went))
