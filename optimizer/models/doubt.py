"""How far a guess about times is to be trusted, learned from how such guesses came out.

Between the time that is expected somewhere and the slowest that physics allows there is a way. Each first
visit shows how much of it the truth really went; the share over all visits, weighted by the length of their
ways, is how far to go the next time.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.models.ways import Ways

_LEAST_SHARE = 0.1
_SHORTEST_WAY = 0.005
_CAUTION = 1.5
"""By how much what was seen is exaggerated."""


class Doubt:
    """The share of the way from the expected to the slowest time that is to be reckoned with."""

    def __init__(self) -> None:
        self._ways = Ways()

    @property
    def share(self) -> float:
        """From `_LEAST_SHARE` to 1."""
        return min(1.0, max(_LEAST_SHARE, self._ways.share))

    def export_state(self) -> list[float]:
        """Return what was learned, for `import_state`."""
        return self._ways.export_state()

    def import_state(self, state: Sequence[float]) -> None:
        """Start from an exported state. Raises ValueError or TypeError for anything else."""
        self._ways.import_state(state)

    def observe(self, expected_s: float, slowest_s: float, measured_s: float, unknown: float) -> None:
        """Learn from a visit; `unknown` is 1 where nothing near was measured before, 0 where all was."""
        if min(expected_s, measured_s) <= 0.0:
            return
        way = slowest_s / expected_s - 1.0
        if way < _SHORTEST_WAY or unknown <= 0.0:
            return
        self._ways.observe(way, _CAUTION * (measured_s / expected_s - 1.0), unknown)
