"""The clock that was chosen for the highest load of late, and how often such a load came back at once."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import NamedTuple

_REMEMBERED = 120
"""Windows: a surge that comes every minute or two may well come again."""
_AS_MUCH = 0.97
_SURGE = 1.5
_LEAST = 10


class _Seen(NamedTuple):
    rate_per_s: float
    clock_mhz: int | None
    surged: bool


_RATE_PER_S = attrgetter("rate_per_s")


class Stronghold:
    """Remembers the highest load of the last `_REMEMBERED` windows, and the clock last chosen for as much."""

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque(maxlen=_REMEMBERED)
        self._rate_per_s = 0.0
        self._clock_mhz: int | None = None
        self._surges = 0

    @property
    def rate_per_s(self) -> float:
        """The load that it is for, in images a second; 0 when none was seen."""
        return self._rate_per_s

    @property
    def clock_mhz(self) -> int | None:
        """The clock; None when none is known to do."""
        return self._clock_mhz

    @property
    def surges_per_window(self) -> float:
        """How often the load rose by half or more from one window to the next."""
        return self._surges / max(_LEAST, len(self._seen))

    def observe(self, rate_per_s: float, before_per_s: float, clock_mhz: int | None) -> None:
        """Take in a window's load, the load before it, and the clock that was then chosen."""
        surged = rate_per_s > _SURGE * before_per_s > 0.0
        forgotten = len(self._seen) == _REMEMBERED and self._seen[0].surged
        self._seen.append(_Seen(rate_per_s, clock_mhz, surged))
        self._surges += surged - forgotten
        self._find()

    def lose(self, clock_mhz: int | None) -> None:
        """Forget a clock at which answers were late, and those below it."""
        if clock_mhz is None:
            return
        for at, seen in enumerate(self._seen):
            if seen.clock_mhz is not None and seen.clock_mhz <= clock_mhz:
                self._seen[at] = seen._replace(clock_mhz=None)
        self._find()

    def _find(self) -> None:
        """Find the highest load, and the clock last chosen for as much: asked for more often than changed."""
        self._rate_per_s = max(map(_RATE_PER_S, self._seen), default=0.0)
        enough = _AS_MUCH * self._rate_per_s
        last = (seen.clock_mhz for seen in reversed(self._seen) if seen.rate_per_s >= enough)
        self._clock_mhz = next(last, None)
