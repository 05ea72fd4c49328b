"""How far the first batches that ran depart from what was predicted of them, and what that says of others.

The time of a batch has parts: what it takes whatever its size, what its images take to compute, what memory
takes, which no clock hurries. That all are off by one factor is likely, and puts nothing else in doubt: a
level. Where an error grows with the size, one part is off by more than another; at another size or clock they
weigh otherwise. And a level much further off than was doubted belongs to another machine than was predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.telemetry import BatchTimes

Array = NDArray[np.float64]

_FULL_WEIGHT_BATCHES = 8
_UNBENT = 1.0
"""As if so many batches, e times as large as the others, had been off by just as much as these."""
_LEVEL_TELLS = 0.5
"""The share of a surprising level that is to be reckoned with once more, e times as far away.

Of two parts that weigh alike, one off by twice the level, the share changes by a quarter over such a way.
"""
_STEEPER = 3.0
"""An error may change so much faster with the clock: what no size changes is soon a small part."""


class Departure(NamedTuple):
    """What the first batches took, held against a prediction; everything in logarithms.

    Args:
        level: by how much they all took longer.
        bend: how fast that grows with the size.
        log_size: where the level was found, ...
        log_clock: ... and at which clock.
    """

    level: float
    bend: float
    log_size: float
    log_clock: float

    def doubt(self, log_sizes: Array, log_clocks: Array, stated: float) -> Array:
        """Return how far else the prediction may be off, `[sizes, clocks]`, beyond what it states."""
        least = _LEVEL_TELLS * max(0.0, abs(self.level) - stated)
        bend = abs(self.bend)
        by_size = max(least, bend) * np.abs(log_sizes - self.log_size)
        by_clock = max(least, _STEEPER * bend) * np.abs(log_clocks - self.log_clock)
        doubt: Array = by_size[:, None] + by_clock
        return doubt


def departure(batches: Mapping[int, BatchTimes], expected_s: Array, clock: float) -> Departure:
    """Hold batches that ran, at least one, against what one of each size was predicted to take at a clock."""
    log_sizes = np.log(np.array(list(batches), float))
    took_s = np.array([times.total_s for times in batches.values()])
    counts = np.array([times.count for times in batches.values()], float)
    errors = np.log(took_s / (counts * expected_s))
    return Departure(
        math.log(float(took_s.sum()) / float(counts @ expected_s)),
        _bend(log_sizes, errors, np.minimum(counts, _FULL_WEIGHT_BATCHES)),
        float(np.average(log_sizes, weights=took_s)),
        math.log(clock),
    )


def _bend(log_sizes: Array, errors: Array, weights: Array) -> float:
    """Return how fast errors grow with the size, as the line does that fits them best."""
    ways = log_sizes - np.average(log_sizes, weights=weights)
    return float(weights * ways @ errors / (_UNBENT + weights * ways @ ways))
