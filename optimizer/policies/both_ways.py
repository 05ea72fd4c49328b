"""Whether it pays to wait for batches to grow, at a clock and a load: tried both ways, and compared.

What a larger batch saves is a difference of two predictions that are nearly alike, and no model is as good as
two measurements. A delay is changed at no cost, so in calm both ways have their turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_TURNS = 4
"""Windows that each way gets: the mean power of a second varies by a per cent, as much as is at stake."""
_MEMORY = 0.97
_SAME_LOAD = 1.15


@dataclass(slots=True)
class _Mean:
    """A mean that forgets."""

    weight: float = 0.0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.weight = _MEMORY * self.weight + 1.0
        self.total = _MEMORY * self.total + value

    @property
    def value(self) -> float:
        return self.total / self.weight


@dataclass(slots=True)
class BothWays:
    """What windows cost with a delay and without, at the clock and the load where this was last asked.

    Costs are of an image, in any unit; they may be negative.
    """

    _clock_mhz: int | None = None
    _rate_per_s: float = 0.0
    _delayed: _Mean = field(default_factory=_Mean)
    _at_once: _Mean = field(default_factory=_Mean)

    def ask(self, clock_mhz: int | None, rate_per_s: float) -> None:
        """Turn to a clock and a load; what was measured at others is forgotten."""
        ratio = max(rate_per_s, self._rate_per_s) / max(1e-9, min(rate_per_s, self._rate_per_s))
        if clock_mhz != self._clock_mhz or ratio > _SAME_LOAD:
            self._clock_mhz, self._rate_per_s = clock_mhz, rate_per_s
            self._delayed, self._at_once = _Mean(), _Mean()

    def observe(self, clock_mhz: int | None, cost: float, *, delayed: bool) -> None:
        """Take in what an image cost in a window."""
        if clock_mhz == self._clock_mhz and math.isfinite(cost):
            (self._delayed if delayed else self._at_once).add(cost)

    @property
    def untried(self) -> bool:
        """Whether the way without a delay has had too few turns, after the other has had its own."""
        return self._delayed.weight >= _TURNS - 1 > self._at_once.weight

    @property
    def pays(self) -> bool | None:
        """Whether waiting costs less; None until both have had their turns."""
        if min(self._delayed.weight, self._at_once.weight) < _TURNS - 1:
            return None
        return self._delayed.value < self._at_once.value
