"""How much better than expected a setting that never ran may be: as much as such guesses were off."""

from __future__ import annotations

_FIRST, _LEAST = 0.04, 0.004
_FIRST_VISITS = 1.0
_MEMORY = 0.98


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
