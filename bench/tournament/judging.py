"""What a result is worth beside others of its cell: ratios, shares, and where a difference arose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from bench.tournament.results import Ground, Played, Series
from bench.tournament.score import Score

LEAST_GAIN = 0.02
"""Of the oracle's revenue: where it brings less over the default, a share of that says nothing."""
BEATEN_BY = 0.005
COLD_START_DECISIONS = 20
FINAL_SHARE = 0.95
RATE_WINDOWS = 10
"""A revenue rate is the mean over so many windows: single ones carry the chance of their arrivals."""


def revenue_ratio(ground: Ground, score: Score) -> float | None:
    """Return revenue over that of the best fixed setting; None where even that one earns nothing."""
    best = ground.oracle.score.revenue
    return score.revenue / best if best > 0.0 else None


def gain_share(ground: Ground, score: Score) -> float | None:
    """Return (revenue - default) / (best fixed - default); None where there is next to nothing to gain."""
    default, best = ground.default.score.revenue, ground.oracle.score.revenue
    attainable = best - default
    if attainable <= LEAST_GAIN * abs(best):
        return None
    return (score.revenue - default) / attainable


def energy_saving(score: Score, against: Score) -> float | None:
    """Return by what share an image takes fewer joules; None where one of the two completed nothing."""
    ours, theirs = score.joules_per_image, against.joules_per_image
    return None if ours is None or not theirs else 1.0 - ours / theirs


def has_slack(ground: Ground) -> bool:
    """Whether the default setting uses at most half of the SLO, at the 99th percentile, and is in time."""
    p99_ms = ground.default.score.p99_ms
    return ground.default.score.in_time and p99_ms is not None and p99_ms <= ground.slo_ms / 2.0


def decisions_until_final(series: Series) -> int | None:
    """Return after how many decisions the revenue rate came to 95 % of the final one, for steady traffic.

    The final rate is the mean of the second half; None where it is not positive, or the run is too short.
    """
    revenue = series.revenue
    if len(revenue) < 2 * RATE_WINDOWS:
        return None
    final = fmean(revenue[len(revenue) // 2 :])
    rates = (fmean(revenue[at : at + RATE_WINDOWS]) for at in range(len(revenue) - RATE_WINDOWS + 1))
    reached = (at for at, rate in enumerate(rates) if rate >= FINAL_SHARE * final)
    return next(reached, None) if final > 0.0 else None


@dataclass(frozen=True, slots=True)
class Why:
    """Where a rival's lead over ours comes from, in shares of our revenue; the first three add up to `lead`.

    `income`, `late` and `energy` say by which entry of the books; `cold_start`, `switching` and `settled`
    when: in the first decisions, in the windows during and after a change of our setting, or otherwise.
    """

    rival: str
    lead: float
    income: float
    late: float
    energy: float
    cold_start: float
    switching: float
    settled: float

    def __str__(self) -> str:
        entries = {"more income": self.income, "fewer penalties": self.late, "less energy": self.energy}
        times = {
            "the cold start": self.cold_start,
            "our changes of setting": self.switching,
            "settled operation": self.settled,
        }
        entry, when = max(entries, key=entries.__getitem__), max(times, key=times.__getitem__)
        return (
            f"{entry} ({entries[entry]:+.1%} of our revenue), mostly in {when} ({times[when]:+.1%}); income "
            f"{self.income:+.1%}, penalties {self.late:+.1%}, energy {self.energy:+.1%}"
        )


def why_beaten(ours: Played, rival: Played) -> Why | None:
    """Split a rival's lead; None where it leads by no more than half a percent of our revenue."""
    scale = abs(ours.score.revenue) or 1.0
    lead = (rival.score.revenue - ours.score.revenue) / scale
    if lead <= BEATEN_BY:
        return None
    cold, switching, settled = (part / scale for part in _when(ours.series, rival.series))
    return Why(
        rival=rival.policy,
        lead=lead,
        income=(rival.score.income - ours.score.income) / scale,
        late=(ours.score.penalty - rival.score.penalty) / scale,
        energy=(ours.score.energy_cost - rival.score.energy_cost) / scale,
        cold_start=cold,
        switching=switching,
        settled=settled,
    )


def _when(ours: Series, rival: Series) -> tuple[float, float, float]:
    """Sum the rival's lead by kind of window; both runs see the same arrivals in the same windows."""
    sums = [0.0, 0.0, 0.0]
    changed = _changed(ours)
    for index, (own, other) in enumerate(zip(ours.revenue, rival.revenue, strict=False)):
        kind = 0 if index < COLD_START_DECISIONS else 1 if changed[index] else 2
        sums[kind] += other - own
    return sums[0], sums[1], sums[2]


def _changed(series: Series) -> Sequence[bool]:
    """Tell for each window whether the setting changed at its begin or at that of the window before."""
    points = list(zip(series.batch_limit, series.max_delay_ms, series.sm_clock_mhz, strict=True))
    fresh = [False, *(now != before for before, now in pairwise(points))]
    return [now or before for before, now in zip([False, *fresh], fresh, strict=False)]
