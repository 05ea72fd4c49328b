"""The tests that the studies use: SciPy's and scikit-posthocs' own, in small values that can be written down.

Energy of trainings is far from normal (early stopping makes it skewed, some trainings fail), so everything
rests on ranks, as in del Rey et al.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scikit_posthocs import posthoc_dunn
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95
LEAST_TO_CORRELATE = 3
_SEED = 0


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of `count` pairs; `rho` is None where one side never changes."""

    rho: float | None
    p_value: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two groups compared: Dunn's p-value after Holm, and Cliff's delta.

    `delta` is the share of pairs in which a value of `first` is the larger, less the share in which it is the
    smaller: 1 when all of `first` lies above all of `second`.
    """

    first: str
    second: str
    p_value: float
    delta: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Kruskal-Wallis over several groups, its effect size, and all pairs.

    `epsilon_squared` is H / (n - 1): the share of the variance of ranks that the groups explain
    (Tomczak, Tomczak 2014).
    """

    h: float
    p_value: float
    epsilon_squared: float
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Saving:
    """How much less `cheap` takes than `dear`: a share, with its bootstrap interval."""

    share: float
    low: float
    high: float


def correlation(across: Sequence[float], up: Sequence[float]) -> Correlation:
    """Correlate ranks. Sequences of one length."""
    if len(across) < LEAST_TO_CORRELATE or len(set(across)) < 2 or len(set(up)) < 2:
        return Correlation(None, None, len(across))
    found = stats.spearmanr(across, up)
    return Correlation(float(found.statistic), float(found.pvalue), len(across))


def difference(groups: Mapping[str, Sequence[float]]) -> Difference | None:
    """Test whether groups differ, and which; None without two groups of two values that are not all equal."""
    used = {name: values for name, values in groups.items() if len(values) > 1}
    if len(used) < 2 or len({value for values in used.values() for value in values}) < 2:
        return None
    found = stats.kruskal(*used.values())
    count = sum(len(values) for values in used.values())
    return Difference(
        h=float(found.statistic),
        p_value=float(found.pvalue),
        epsilon_squared=float(found.statistic) / (count - 1),
        pairs=_pairs(used),
    )


def cliffs_delta(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Cliff's delta by Mann and Whitney's U, which counts the same pairs."""
    u = stats.mannwhitneyu(first, second).statistic
    return float(2.0 * u / (len(first) * len(second)) - 1.0)


def saving(dear: Sequence[float], cheap: Sequence[float]) -> Saving:
    """Return 1 - median(cheap) / median(dear), with a percentile bootstrap over both groups."""
    share = _saved(np.asarray(dear), np.asarray(cheap))
    if min(len(dear), len(cheap)) < 2:
        return Saving(float(share), float("nan"), float("nan"))
    found = stats.bootstrap(
        (dear, cheap),
        _saved,
        paired=False,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=_SEED,
    )
    interval = found.confidence_interval
    return Saving(float(share), float(interval.low), float(interval.high))


def far_out(values: Sequence[float], fence: float) -> list[bool]:
    """Tell which values lie more than `fence` interquartile ranges outside the quartiles (Tukey 1977).

    Infinitely many: none do, also where the quartiles are the same.
    """
    if math.isinf(fence):
        return [False] * len(values)
    low, high = np.percentile(values, [25.0, 75.0])
    reach = fence * (high - low)
    return [not (low - reach <= value <= high + reach) for value in values]


def _saved(dear: np.ndarray, cheap: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(1.0 - np.median(cheap, axis=axis) / np.median(dear, axis=axis))


def _pairs(groups: Mapping[str, Sequence[float]]) -> tuple[Pair, ...]:
    names = list(groups)
    p_values = posthoc_dunn([list(groups[name]) for name in names], p_adjust="holm").to_numpy()
    return tuple(
        Pair(names[i], names[j], float(p_values[i][j]), cliffs_delta(groups[names[i]], groups[names[j]]))
        for i, j in combinations(range(len(names)), 2)
    )
