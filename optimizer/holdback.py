"""What governing saves, measured: now and then the default setting is held for a moment, and compared.

Predictions and memories of how it was before cannot tell what governing saves today; only the default
setting on today's traffic can. So a small share of the windows, chosen by lot, runs at the default setting.
Each such episode is compared with the governed windows before and after it: load that rises or falls evenly
cancels, and what does not is chance, which the confidence interval shows. Episodes are drawn without looking
at the load, or the comparison would be biased.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from optimizer.telemetry import EnergySource, Window

EPISODE_WINDOWS = 4
"""Windows at the default setting in a row; the first is not counted, the clock is still settling."""

BESIDE_WINDOWS = 3
"""Governed windows on either side that are compared with; after an episode the first is not counted."""

LEAST_COMPARISONS = 5
"""Fewer say nothing about their own spread."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval (Student's t)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Saving:
    """Governed less default, the other way round for power: what governing gains and what it spares.

    Args:
        comparisons: episodes that were compared.
        revenue_per_s: currency a second gained; None for fewer than `LEAST_COMPARISONS`.
        power_w: watts spared; None as well where energy was not measured all the time.
        source: of the power.
        dropped: episodes that were compared before the targets changed, and count no more.
    """

    comparisons: int
    revenue_per_s: Interval | None
    power_w: Interval | None
    source: EnergySource
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Sample:
    """A window in numbers; watts are None when not measured."""

    revenue_per_s: float
    watts: float | None


class Holdback:
    """Decides by lot when the default setting is held, and compares. Pure but for what it remembers.

    Args:
        share: of the windows that run at the default setting, in the long run; above 0, at most a half.
        random: draws the lots.
    """

    def __init__(self, share: float, random: Random) -> None:
        if not 0.0 < share <= 0.5:
            raise ValueError(f"the share held back must be above 0 and at most 0.5, got {share}")
        gap_windows = EPISODE_WINDOWS * (1.0 - share) / share
        self._start_chance = 1.0 / max(1.0, gap_windows - 2 * BESIDE_WINDOWS)
        self._random = random
        self._gains: list[float] = []
        self._dropped = 0
        self._spared_w: list[float | None] = []
        self._source = EnergySource.NOT_MEASURED
        self._before: deque[_Sample] = deque(maxlen=BESIDE_WINDOWS)
        self._held: list[_Sample] = []
        self._after: list[_Sample] = []
        self._holds = False

    @property
    def holds(self) -> bool:
        """Whether the next window is to run at the default setting."""
        return self._holds

    @property
    def saving(self) -> Saving:
        """What the comparisons say so far."""
        watts = [each for each in self._spared_w if each is not None]
        measured = len(watts) == len(self._spared_w)
        return Saving(
            len(self._gains),
            interval(self._gains),
            interval(watts) if measured else None,
            self._source,
            self._dropped,
        )

    def observe(self, window: Window, revenue: float) -> None:
        """Take in a window that ran as `holds` said, and what it earned; then draw the next lot.

        Revenue may be counted from any level that the setting does not change, such as the most that the
        images could have earned: the less it depends on chance, the sooner the comparison tells something.
        """
        if window.duration_s <= 0.0:
            return
        joules = window.device.energy.joules
        watts = None if joules is None else joules / window.duration_s
        sample = _Sample(revenue / window.duration_s, watts)
        self._source = window.device.energy.source
        if self._holds:
            self._hold(sample)
        elif self._held:
            self._follow(sample)
        else:
            self._precede(sample)

    def abandon(self) -> None:
        """Somebody else chose the setting: what is under way compares nothing any more."""
        self._holds = False
        self._before.clear()
        self._held.clear()
        self._after.clear()

    def start_over(self) -> None:
        """What revenue means has changed: what was compared so far was of another kind."""
        self.abandon()
        self._dropped += len(self._gains)
        self._gains.clear()
        self._spared_w.clear()

    def _precede(self, sample: _Sample) -> None:
        self._before.append(sample)
        if len(self._before) == BESIDE_WINDOWS:
            self._holds = self._random.random() < self._start_chance

    def _hold(self, sample: _Sample) -> None:
        self._held.append(sample)
        self._holds = len(self._held) < EPISODE_WINDOWS

    def _follow(self, sample: _Sample) -> None:
        self._after.append(sample)
        if len(self._after) > BESIDE_WINDOWS:
            self._compare(self._held[1:], [*self._before, *self._after[1:]])
            after = self._after[1:]
            self.abandon()
            self._before.extend(after)

    def _compare(self, held: Sequence[_Sample], governed: Sequence[_Sample]) -> None:
        self._gains.append(_mean_revenue(governed) - _mean_revenue(held))
        held_w, governed_w = _mean_watts(held), _mean_watts(governed)
        self._spared_w.append(None if held_w is None or governed_w is None else held_w - governed_w)


def interval(values: Sequence[float]) -> Interval | None:
    """Return the mean with its confidence interval; None for too few values."""
    if len(values) < LEAST_COMPARISONS:
        return None
    mean = statistics.fmean(values)
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def student_t(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t, from 4 degrees of freedom to within 0.5 %.

    By the expansion about the normal quantile in Abramowitz and Stegun, 26.7.5.
    """
    z = statistics.NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2.0)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _mean_revenue(samples: Sequence[_Sample]) -> float:
    return statistics.fmean(sample.revenue_per_s for sample in samples)


def _mean_watts(samples: Sequence[_Sample]) -> float | None:
    watts = [sample.watts for sample in samples if sample.watts is not None]
    return statistics.fmean(watts) if len(watts) == len(samples) else None
