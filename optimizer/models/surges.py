"""How much traffic comes again and again, though not all the time."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 40
_SHARE = 0.2


class PeakModel:
    """The rate that a fifth of the last `_REMEMBERED` windows exceeded: to be ready for without alarm.

    A surge that is rarer costs less when it comes than the readiness for it would all the time.
    """

    def __init__(self) -> None:
        self._rates_per_s: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, rate_per_s: float) -> None:
        """Learn from a window."""
        self._rates_per_s.append(rate_per_s)

    @property
    def rate_per_s(self) -> float:
        """Images a second to be ready for."""
        if not self._rates_per_s:
            return 0.0
        ascending = sorted(self._rates_per_s)
        return ascending[int((1.0 - _SHARE) * (len(ascending) - 1))]
