"""Whether the machine still is the one that was learned."""

from __future__ import annotations

_MEMORY = 0.7
_ALLOWED = 0.12
_SUSPECT = 0.05
_LEAST_WINDOWS = 4


class DriftDetector:
    """Finds that batches take persistently other times than at the same clock before.

    Errors right after a change of clock are the model's, unless it was measured there; else only those at a
    clock that stays count. But what was found there of late is not forgotten with the clock: surprises there
    are what it is left for.
    """

    def __init__(self) -> None:
        self.found = False
        self._clock_mhz: int | None = None
        self._windows = 0
        self._mean = 0.0

    def observe(self, error: float, clock_mhz: int | None, *, familiar: bool = False) -> bool:
        """Take in the relative error of a window's batch times. True when the machine has changed.

        `familiar`: whether what was expected there had been measured there.
        """
        if clock_mhz != self._clock_mhz:
            self._clock_mhz = clock_mhz
            fleeting = self._windows < _LEAST_WINDOWS or abs(self._mean) < _SUSPECT
            if fleeting and not familiar:
                self._windows, self._mean = 0, 0.0
        self._windows += 1
        self._mean = _MEMORY * self._mean + (1.0 - _MEMORY) * error
        self.found = self._windows >= _LEAST_WINDOWS and abs(self._mean) > _ALLOWED
        if self.found:
            self._windows, self._mean = 0, 0.0
        return self.found
