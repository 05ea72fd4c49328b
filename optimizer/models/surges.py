"""How much traffic comes again and again, though not all the time."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 40
_SHARE = 0.2
_LATE_BEARABLE, _LATE_TOO_MUCH = 0.003, 0.008
_LATE_MEMORY = 0.98


class PeakModel:
    """The rate that a fifth of the last `_REMEMBERED` windows exceeded: to be ready for without alarm.

    A surge that is rarer costs less when it comes than the readiness for it would all the time. Not so where
    many answers were late of late: the more, the rarer the surges to be ready for.
    """

    def __init__(self) -> None:
        self._rates_per_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._late = self._answered = 0.0

    def observe(self, rate_per_s: float, late: int, answered: int) -> None:
        """Learn from a window: images that came a second, and how many of the answered ones were late."""
        self._rates_per_s.append(rate_per_s)
        self._late = _LATE_MEMORY * self._late + late
        self._answered = _LATE_MEMORY * self._answered + answered

    @property
    def rate_per_s(self) -> float:
        """Images a second to be ready for."""
        if not self._rates_per_s:
            return 0.0
        ascending = sorted(self._rates_per_s)
        return ascending[int((1.0 - self._share) * (len(ascending) - 1))]

    @property
    def _share(self) -> float:
        late_share = self._late / max(1.0, self._answered)
        calm = (_LATE_TOO_MUCH - late_share) / (_LATE_TOO_MUCH - _LATE_BEARABLE)
        return _SHARE * min(1.0, max(0.0, calm))
