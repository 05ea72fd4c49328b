"""How much better than expected a setting that never ran may be: as much as such guesses were off."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.models.ways import Ways

_FIRST, _LEAST = 0.04, 0.004
_FIRST_VISITS = 1.0
_MEMORY = 0.98
_EXAGGERATION = 1.5


class Surprise:
    """The mean relative error of expected power at first visits; before any, a cautious guess."""

    def __init__(self) -> None:
        self._visits, self._errors = _FIRST_VISITS, _FIRST_VISITS * _FIRST

    @property
    def share(self) -> float:
        """By how much a setting of which nothing is known may well cost less than expected."""
        return min(_FIRST, max(_LEAST, self._errors / self._visits))

    def observe(self, error: float, unknown: float) -> None:
        """Learn from a visit; `unknown` is 1 where nothing near was measured before, 0 where all was."""
        self._visits = _MEMORY * self._visits + unknown
        self._errors = _MEMORY * self._errors + unknown * abs(error)


class Hope:
    """How much sooner than expected batches may end: the share of the way to the least time to reckon with.

    Between the time that is expected somewhere and the least that physics allows there is a way. First visits
    show how much of it the truth went, and that is hoped for the next time, exaggerated; at first half of it.
    """

    def __init__(self) -> None:
        self._ways = Ways()

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self._ways.share

    def export_state(self) -> list[float]:
        """Return what was learned, for `import_state`."""
        return self._ways.export_state()

    def import_state(self, state: Sequence[float]) -> None:
        """Start from an exported state. Raises ValueError or TypeError for anything else."""
        self._ways.import_state(state)

    def observe(self, expected_s: float, least_s: float, measured_s: float, unknown: float) -> None:
        """Learn from a visit; `unknown` is 1 where nothing near was measured before, 0 where all was."""
        if min(expected_s, measured_s) <= 0.0:
            return
        way = max(0.0, 1.0 - least_s / expected_s)
        self._ways.observe(way, _EXAGGERATION * (1.0 - measured_s / expected_s), unknown)
