"""Figures with an honest interval, from few repeats and without an assumption on how they are distributed.

The figure is the median over the turns. Its interval reaches from the k-th smallest to the k-th largest
turn, with the largest k that still covers the true median with the wanted probability: each turn lies above
it or below with even chances, so the coverage is 1 - 2 P(Binomial(n, 1/2) < k), whatever the distribution.
Six turns give 96.9 %, from the smallest to the largest; fewer give less, and say so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WANTED_COVERAGE = 0.95
LEAST_TURNS = 6
"""Fewest turns whose interval covers what is wanted."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The median of some turns.

    Args:
        value: the median.
        low: lower end of its interval.
        high: upper end.
        coverage: probability that the interval holds the true median; 0 for a single turn.
        turns: how many there were.
    """

    value: float
    low: float
    high: float
    coverage: float
    turns: int


def estimate(values: Sequence[float], wanted: float = WANTED_COVERAGE) -> Estimate | None:
    """Return the median with its interval; None without values."""
    if not values:
        return None
    ordered, count = sorted(values), len(values)
    rank = max([1, *(k for k in range(1, (count + 1) // 2 + 1) if coverage(count, k) >= wanted)])
    return Estimate(
        statistics.median(ordered), ordered[rank - 1], ordered[-rank], coverage(count, rank), count
    )


def coverage(count: int, rank: int) -> float:
    """Return how probably the median lies between the `rank`-th smallest and largest of `count` values."""
    outside = float(sum(math.comb(count, below) for below in range(rank))) * 0.5**count
    return max(0.0, 1.0 - 2.0 * outside)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed. Raises for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def thinned(values: Sequence[float], most: int) -> tuple[float, ...]:
    """Return the values in ascending order, or `most` of them that are spread as all of them are."""
    ordered, count = sorted(values), len(values)
    if count <= most:
        return tuple(ordered)
    return tuple(ordered[int((index + 0.5) * count / most)] for index in range(most))


def halves_apart(values: Sequence[float]) -> float | None:
    """Return by what share the medians of the first and second half differ; None for fewer than 4 values.

    The middle one of an odd number belongs to neither.
    """
    half = len(values) // 2
    if half < 2:
        return None
    first, second = statistics.median(values[:half]), statistics.median(values[-half:])
    return abs(second - first) / min(first, second) if min(first, second) > 0 else math.inf
