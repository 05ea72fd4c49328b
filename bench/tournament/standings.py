"""How policies stand: one in one cell, one over all cells, ours along the axes of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.tournament import judging
from bench.tournament.figures import mean
from bench.tournament.plan import OURS, Cell
from bench.tournament.results import Ground, Played

_AXES: Sequence[tuple[str, Callable[[Cell], str]]] = (
    ("GPU", lambda cell: cell.gpu_name),
    ("network", lambda cell: cell.model),
    ("traffic", lambda cell: cell.traffic),
    ("SLO", lambda cell: cell.slo),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One policy in one cell, beside the fixed settings there. Shares and ratios as in `judging`."""

    cell: Cell
    policy: str
    revenue: float
    default_revenue: float
    oracle_revenue: float
    ratio: float | None
    gain_share: float | None
    late_share: float
    joules_per_image: float | None
    saving: float | None
    clock_changes: int
    decide_us_p99: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy over all cells; means over those cells where the figure has a meaning."""

    policy: str
    cells: int
    ratio: float | None
    ratio_lowest: float | None
    steady_gain: float | None
    changing_gain: float | None
    late_share: float | None
    late_share_highest: float | None
    saving: float | None
    clock_changes_per_minute: float | None
    decide_us_p99: float | None
    beats_ours: float | None


@dataclass(frozen=True, slots=True)
class OursAlong:
    """Our policy over the cells that share one place on an axis; means where the figure has a meaning."""

    axis: str
    place: str
    cells: int
    ratio: float | None
    gain_share: float | None
    gain_share_lowest: float | None
    late_share_highest: float
    saving: float | None


def line_of(ground: Ground, run: Played) -> Line:
    """Put one run beside the fixed settings of its cell."""
    return Line(
        cell=run.cell,
        policy=run.policy,
        revenue=run.score.revenue,
        default_revenue=ground.default.score.revenue,
        oracle_revenue=ground.oracle.score.revenue,
        ratio=judging.revenue_ratio(ground, run.score),
        gain_share=judging.gain_share(ground, run.score),
        late_share=run.score.late_share,
        joules_per_image=run.score.joules_per_image,
        saving=judging.energy_saving(run.score, ground.default.score),
        clock_changes=run.clock_changes,
        decide_us_p99=run.decide_us_p99,
    )


def standing_of(policy: str, lines: Sequence[Line], duration_s: float) -> Standing:
    """Sum up one policy's lines; `beats_ours` is None for ours."""
    own = [line for line in lines if line.policy == policy]
    ratios, late = known(own, lambda line: line.ratio), [line.late_share for line in own]
    return Standing(
        policy=policy,
        cells=len(own),
        ratio=mean(ratios),
        ratio_lowest=min(ratios, default=None),
        steady_gain=mean(known([line for line in own if line.cell.steady], lambda line: line.gain_share)),
        changing_gain=mean(
            known([line for line in own if not line.cell.steady], lambda line: line.gain_share)
        ),
        late_share=mean(late),
        late_share_highest=max(late, default=None),
        saving=mean(known(own, lambda line: line.saving)),
        clock_changes_per_minute=mean([line.clock_changes / duration_s * 60.0 for line in own]),
        decide_us_p99=median(line.decide_us_p99 for line in own) if own else None,
        beats_ours=None if policy == OURS else _beats_ours(own, lines),
    )


def known(lines: Sequence[Line], value: Callable[[Line], float | None]) -> list[float]:
    """Return this value of each line that has it."""
    return [found for line in lines if (found := value(line)) is not None]


def _beats_ours(own: Sequence[Line], lines: Sequence[Line]) -> float | None:
    ours = {line.cell: line.revenue for line in lines if line.policy == OURS}
    leads = [
        (line.revenue - ours[line.cell]) / (abs(ours[line.cell]) or 1.0) for line in own if line.cell in ours
    ]
    return mean([float(lead > judging.BEATEN_BY) for lead in leads])


def ours_along(ours: Sequence[Line]) -> Iterator[OursAlong]:
    """Yield our policy's lines summed up, for each GPU, network, traffic and SLO."""
    for axis, place_of in _AXES:
        for place in dict.fromkeys(place_of(line.cell) for line in ours):
            own = [line for line in ours if place_of(line.cell) == place]
            shares = known(own, lambda line: line.gain_share)
            yield OursAlong(
                axis=axis,
                place=place,
                cells=len(own),
                ratio=mean(known(own, lambda line: line.ratio)),
                gain_share=mean(shares),
                gain_share_lowest=min(shares, default=None),
                late_share_highest=max(line.late_share for line in own),
                saving=mean(known(own, lambda line: line.saving)),
            )
