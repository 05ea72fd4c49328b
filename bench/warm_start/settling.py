"""When a run has settled, counted in decisions, and what was lost until then.

The count that is judged by looks at the same cell with many seeds. The revenue of a window, in the mean over
seeds, has little chance left in it, so that it shows each decision; it is held against the higher final rate
of both starts, so that none is settled that settled for less. Of each window only the later half counts: in
the earlier one the clock may still be on its way to what was decided, for up to a quarter of a second, and
where the default setting earns half as much that alone keeps the first window after the best of decisions
below 95 %. By whole windows the same is counted beside it.

Single runs need means over ten windows to tell a rate from chance, and these hide what the first decisions
do. The first such count is the tournament's, against a run's own final rate; a stricter one is against the
higher final rate of both, and to stay. What was lost needs no threshold at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from bench.tournament.judging import FINAL_SHARE, RATE_WINDOWS, decisions_until_final
from bench.tournament.results import Series
from bench.tournament.score import Score

CALM = 0.9
"""Of the final rate: single means over windows may fall to this by chance and count as settled still."""


@dataclass(frozen=True, slots=True)
class Settling:
    """How a run began.

    Args:
        decisions: until 95 % of its own final revenue rate, as the tournament counts; None: never, or the
            final rate is not positive.
        sustained: until 95 % of the higher final rate of both runs, from where it stays; None: never.
        lost_s: revenue that the first half fell short of that rate, in seconds of it.
        late_share: of all images.
        final_per_s: mean revenue of the second half.
    """

    decisions: int | None
    sustained: int | None
    lost_s: float
    late_share: float
    final_per_s: float


def final_rate(revenue: Sequence[float]) -> float:
    """Return the mean of the second half, per window."""
    return fmean(revenue[len(revenue) // 2 :])


def settling(series: Series, score: Score, final: float, interval_s: float) -> Settling:
    """Judge a run by its own final rate and by another one that is given, per window."""
    revenue = series.revenue
    half = revenue[: len(revenue) // 2]
    return Settling(
        decisions=decisions_until_final(series),
        sustained=decisions_to_stay(revenue, final),
        lost_s=interval_s * sum(1.0 - value / final for value in half) if final > 0.0 else 0.0,
        late_share=score.late_share,
        final_per_s=final_rate(revenue) / interval_s,
    )


def decisions_in_the_mean(runs: Sequence[Sequence[float]], final: float) -> int | None:
    """Return after how many decisions the revenue rate was 95 % of a final one, in the mean over seeds.

    That window and, against chance, it and the next together; None: never, or the final rate is not positive.

    Args:
        runs: revenue by window of each seed.
        final: rate to come to, per window.
    """
    rates = [fmean(windows) for windows in zip(*runs, strict=True)]
    enough = FINAL_SHARE * final
    reached = (at for at, pair in enumerate(pairwise(rates)) if min(pair[0], fmean(pair)) >= enough)
    return next(reached, None) if final > 0.0 else None


def decisions_to_stay(revenue: Sequence[float], final: float) -> int | None:
    """Return after how many decisions the rate came to 95 % of a final one and fell below 90 % no more."""
    if final <= 0.0 or len(revenue) < 2 * RATE_WINDOWS:
        return None
    rates = [fmean(revenue[at : at + RATE_WINDOWS]) for at in range(len(revenue) - RATE_WINDOWS + 1)]
    last_low = max((at for at, rate in enumerate(rates) if rate < CALM * final), default=-1)
    return next((at for at in range(last_low + 1, len(rates)) if rates[at] >= FINAL_SHARE * final), None)
