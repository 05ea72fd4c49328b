"""What a tournament says: figures against their targets, policies, rivals that won, the paper's question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.tournament import judging
from bench.tournament.figures import Figure, mean, quantile
from bench.tournament.joule_point import OneCap
from bench.tournament.plan import OURS, Cell
from bench.tournament.results import Failure, Ground, Played
from bench.tournament.score import LATE_SHARE_ALLOWED

JUDGED_GRID = 128 * 110
CLAIM = 0.01
"""Joule Point found one cap within 0.4 to 0.9 % of every network's optimum; beyond 1 % the claim is off."""


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
class Beaten:
    """A cell in which a rival earned more than half a percent more than ours."""

    cell: Cell
    why: judging.Why


@dataclass(frozen=True, slots=True)
class ByTraffic:
    """The card's one static cap under one traffic, against the best fixed setting: means over cells.

    `shortfall` is the revenue missed over the oracle's, `excess` the joules per image over the oracle's,
    less 1; `late_share` of the cap. `holds`: whether both differences are within a percent.
    """

    traffic: str
    cells: int
    shortfall: float | None
    shortfall_highest: float | None
    excess: float | None
    late_share: float | None
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Question:
    """How much the best fixed setting brings over the default one: a GPU, a network, a form, a traffic."""

    cell: Cell
    form: str
    best: str
    default_score: float
    best_score: float
    gain: float | None


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


@dataclass(frozen=True, slots=True)
class ByForm:
    """The paper's question in short: the gain of the best fixed setting over the default, over cells."""

    form: str
    traffic: str
    cells: int
    gain: float | None
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything the tournament reports. All of it simulated."""

    figures: Sequence[Figure]
    standings: Sequence[Standing]
    beaten: Sequence[Beaten]
    ours: Sequence[OursAlong]
    questions: Sequence[Question]
    by_form: Sequence[ByForm]
    caps: Sequence[OneCap]
    cap_by_traffic: Sequence[ByTraffic]
    lines: Sequence[Line]
    failures: Sequence[Failure]
    codes: Sequence[str] = field(default_factory=tuple)


def summarise(
    grounds: Sequence[Ground],
    played: Sequence[Played],
    failures: Sequence[Failure],
    caps: Sequence[OneCap],
    duration_s: float,
) -> Summary:
    """Judge all results. Runs whose cell has no ground are left out."""
    by_cell = {ground.cell: ground for ground in grounds}
    runs = [run for run in played if run.cell in by_cell]
    lines = [line_of(by_cell[run.cell], run) for run in runs]
    policies = list(dict.fromkeys(run.policy for run in runs))
    standings = [_standing(policy, lines, duration_s) for policy in policies]
    questions = tuple(_questions(grounds))
    return Summary(
        figures=tuple(_figures(by_cell, runs, lines, standings)),
        standings=sorted(standings, key=lambda standing: -(standing.ratio or 0.0)),
        beaten=tuple(_beaten(runs)),
        ours=tuple(_ours_along([line for line in lines if line.policy == OURS])),
        questions=questions,
        by_form=tuple(_by_form(questions)),
        caps=tuple(caps),
        cap_by_traffic=tuple(_by_traffic(grounds)),
        lines=lines,
        failures=tuple(failures),
        codes=sorted({ground.code for ground in grounds} | {run.code for run in runs}),
    )


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


def _standing(policy: str, lines: Sequence[Line], duration_s: float) -> Standing:
    own = [line for line in lines if line.policy == policy]
    ratios, late = _known(own, lambda line: line.ratio), [line.late_share for line in own]
    return Standing(
        policy=policy,
        cells=len(own),
        ratio=mean(ratios),
        ratio_lowest=min(ratios, default=None),
        steady_gain=mean(_known([line for line in own if line.cell.steady], lambda line: line.gain_share)),
        changing_gain=mean(
            _known([line for line in own if not line.cell.steady], lambda line: line.gain_share)
        ),
        late_share=mean(late),
        late_share_highest=max(late, default=None),
        saving=mean(_known(own, lambda line: line.saving)),
        clock_changes_per_minute=mean([line.clock_changes / duration_s * 60.0 for line in own]),
        decide_us_p99=median(line.decide_us_p99 for line in own) if own else None,
        beats_ours=None if policy == OURS else _beats_ours(own, lines),
    )


def _known(lines: Sequence[Line], value: Callable[[Line], float | None]) -> list[float]:
    return [found for line in lines if (found := value(line)) is not None]


def _beats_ours(own: Sequence[Line], lines: Sequence[Line]) -> float | None:
    ours = {line.cell: line.revenue for line in lines if line.policy == OURS}
    leads = [
        (line.revenue - ours[line.cell]) / (abs(ours[line.cell]) or 1.0) for line in own if line.cell in ours
    ]
    return mean([float(lead > judging.BEATEN_BY) for lead in leads])


def _beaten(runs: Sequence[Played]) -> Iterator[Beaten]:
    ours = {run.cell: run for run in runs if run.policy == OURS}
    for run in runs:
        if run.policy != OURS and run.cell in ours:
            why = judging.why_beaten(ours[run.cell], run)
            if why is not None:
                yield Beaten(run.cell, why)


def _figures(
    grounds: dict[Cell, Ground], runs: Sequence[Played], lines: Sequence[Line], standings: Sequence[Standing]
) -> Iterator[Figure]:
    ours = [line for line in lines if line.policy == OURS]
    yield from _gain_figures(ours)
    yield from _ratio_figures(ours)
    yield from _late_figures(grounds, ours)
    yield from _rival_figures(standings)
    yield from _saving_figures(grounds, ours)
    yield from _cold_start_figures([run for run in runs if run.policy == OURS and run.cell.steady])
    yield _decide_figure([run for run in runs if run.policy == OURS])


def _gain_figures(ours: Sequence[Line]) -> Iterator[Figure]:
    name = "share of attainable gain"
    for kind, steady, target in (("steady", True, 0.95), ("changing", False, 1.0)):
        own = [line for line in ours if line.cell.steady is steady]
        shares = _known(own, lambda line: line.gain_share)
        untold = len(own) - len(shares)
        left_out = f", {untold} more have next to nothing to gain" if untold else ""
        yield Figure(
            f"{name}, {kind} traffic, mean",
            mean(shares),
            target,
            strict=not steady,
            note=_over(shares) + left_out,
        )
    told = [(line.gain_share, line.cell) for line in ours if line.gain_share is not None]
    lowest, cell = min(told, default=(None, None))
    yield Figure(f"{name}, lowest cell", lowest, 0.80, note=str(cell or ""))


def _ratio_figures(ours: Sequence[Line]) -> Iterator[Figure]:
    steady = _known([line for line in ours if line.cell.steady], lambda line: line.ratio)
    changing = _known([line for line in ours if not line.cell.steady], lambda line: line.ratio)
    name = "revenue over that of the best fixed setting"
    yield Figure(f"{name}, steady traffic, mean", mean(steady), 0.97, note=_over(steady))
    yield Figure(f"{name}, changing traffic, mean", mean(changing), 1.0, strict=True, note=_over(changing))


def _late_figures(grounds: dict[Cell, Ground], ours: Sequence[Line]) -> Iterator[Figure]:
    able = [line for line in ours if grounds[line.cell].fast.score.in_time]
    over = sum(line.late_share > LATE_SHARE_ALLOWED for line in able)
    yield Figure(
        "late share where the fast point holds the SLO, highest cell",
        max((line.late_share for line in able), default=None),
        LATE_SHARE_ALLOWED,
        least=False,
        note=f"{over} of {len(able)} cells above it; the fast point holds {len(able)} of {len(ours)}",
    )


def _rival_figures(standings: Sequence[Standing]) -> Iterator[Figure]:
    ratios = {standing.policy: standing.ratio for standing in standings}
    ours = ratios.get(OURS)
    for standing in standings:
        if standing.policy == OURS or standing.ratio is None or ours is None:
            continue
        name = standing.policy
        lead = ours - standing.ratio
        yield Figure(
            f"mean revenue ratio, ours less {name}'s",
            lead,
            0.0,
            strict=True,
            note=_over(range(standing.cells)),
        )
        if standing.beats_ours is not None:
            share = f"share of cells in which {name} beats ours by more than {judging.BEATEN_BY:.1%}"
            yield Figure(share, standing.beats_ours, 0.05, least=False)


def _saving_figures(grounds: dict[Cell, Ground], ours: Sequence[Line]) -> Iterator[Figure]:
    slack = [line for line in ours if judging.has_slack(grounds[line.cell])]
    savings = _known(slack, lambda line: line.saving)
    of_oracle = [
        saving
        for line in slack
        if (ground := grounds[line.cell])
        and (saving := judging.energy_saving(ground.oracle.score, ground.default.score)) is not None
    ]
    yield Figure(
        "fewer joules per image than the default setting, cells with slack, mean",
        mean(savings),
        0.30,
        note=_over(savings),
    )
    yield Figure(
        "the same of the best fixed setting, for comparison",
        mean(of_oracle),
        note=_over(of_oracle),
    )


def _cold_start_figures(steady: Sequence[Played]) -> Iterator[Figure]:
    warm = [run.warm for run in steady if run.warm is not None]
    for start, target, taken in (
        ("cold", 20.0, [run.series for run in steady]),
        ("with saved state", 3.0, warm),
    ):
        counts = [found for series in taken if (found := judging.decisions_until_final(series)) is not None]
        yield Figure(
            f"decisions to 95 % of the final revenue rate, {start}, 95th percentile of steady cells",
            quantile([float(count) for count in counts], 0.95),
            target,
            least=False,
            note=f"{_over(counts)}; highest {max(counts, default=0)}",
        )


def _decide_figure(ours: Sequence[Played]) -> Figure:
    large = [run for run in ours if run.settings_on_grid >= JUDGED_GRID] or list(ours)
    times = [run.decide_us_p99 / 1e3 for run in large]
    smallest = min((run.settings_on_grid for run in large), default=0)
    note = f"{_over(times)}, grids of {smallest} settings and more; highest {max(times, default=0.0):.2f}"
    return Figure(
        "decide, 99th percentile in ms, median of cells",
        median(times) if times else None,
        2.0,
        least=False,
        note=note,
    )


def _over(values: Sequence[object]) -> str:
    return f"{len(values)} cell{'' if len(values) == 1 else 's'}"


def _questions(grounds: Sequence[Ground]) -> Iterator[Question]:
    for ground in grounds:
        for form, answer in ground.forms.items():
            yield Question(ground.cell, form, str(answer.point), answer.default, answer.best, answer.gain)


def _by_form(questions: Sequence[Question]) -> Iterator[ByForm]:
    for form, traffic in dict.fromkeys((question.form, question.cell.traffic) for question in questions):
        gains = [
            question.gain
            for question in questions
            if (question.form, question.cell.traffic) == (form, traffic) and question.gain is not None
        ]
        yield ByForm(
            form, traffic, len(gains), mean(gains), min(gains, default=None), max(gains, default=None)
        )


_AXES: Sequence[tuple[str, Callable[[Cell], str]]] = (
    ("GPU", lambda cell: cell.gpu_name),
    ("network", lambda cell: cell.model),
    ("traffic", lambda cell: cell.traffic),
    ("SLO", lambda cell: cell.slo),
)


def _ours_along(ours: Sequence[Line]) -> Iterator[OursAlong]:
    for axis, place_of in _AXES:
        for place in dict.fromkeys(place_of(line.cell) for line in ours):
            own = [line for line in ours if place_of(line.cell) == place]
            shares = _known(own, lambda line: line.gain_share)
            yield OursAlong(
                axis=axis,
                place=place,
                cells=len(own),
                ratio=mean(_known(own, lambda line: line.ratio)),
                gain_share=mean(shares),
                gain_share_lowest=min(shares, default=None),
                late_share_highest=max(line.late_share for line in own),
                saving=mean(_known(own, lambda line: line.saving)),
            )


def _by_traffic(grounds: Sequence[Ground]) -> Iterator[ByTraffic]:
    for traffic in dict.fromkeys(ground.cell.traffic for ground in grounds):
        own = [ground for ground in grounds if ground.cell.traffic == traffic]
        ratios = [
            ratio
            for ground in own
            if (ratio := judging.revenue_ratio(ground, ground.one_cap.score)) is not None
        ]
        savings = [
            saving
            for ground in own
            if (saving := judging.energy_saving(ground.one_cap.score, ground.oracle.score)) is not None
        ]
        ratio, saving = mean(ratios), mean(savings)
        shortfall = None if ratio is None else 1.0 - ratio
        excess = None if saving is None else -saving
        holds = None if shortfall is None or excess is None else max(shortfall, excess) <= CLAIM
        late = mean([ground.one_cap.score.late_share for ground in own])
        highest = max((1.0 - ratio for ratio in ratios), default=None)
        yield ByTraffic(traffic, len(own), shortfall, highest, excess, late, holds)
