"""How a card comes down to a clock at which it keeps its power limit."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence


class PowerLimiter:
    """The clock of batches that would exceed the power limit at the clock asked for.

    It glides evenly from the clock asked for to the one at which the limit is kept, through legal clocks.
    The limiter lets go when nothing has exceeded the limit for as long as it takes to settle.

    Args:
        sm_clocks_mhz: the legal clocks, ascending.
        settle_s: how long the way down takes.
    """

    def __init__(self, sm_clocks_mhz: Sequence[int], settle_s: float) -> None:
        self._legal = sm_clocks_mhz
        self._settle_s = settle_s
        self._since_s = self._until_s = -math.inf

    def clock_mhz(self, start_s: float, asked_mhz: int, settled_mhz: int) -> int:
        """Return the clock of a batch that starts now and may run at `settled_mhz` in the end."""
        if start_s > self._until_s + self._settle_s:
            self._since_s = start_s
        elapsed_s = start_s - self._since_s
        if elapsed_s >= self._settle_s:
            return settled_mhz
        above_mhz = (asked_mhz - settled_mhz) * (1.0 - elapsed_s / self._settle_s)
        return self._legal[bisect_right(self._legal, settled_mhz + above_mhz) - 1]

    def ran_until(self, end_s: float) -> None:
        """Take note of when the batch asked about last is over."""
        self._until_s = end_s
