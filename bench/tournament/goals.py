"""The figures to reach, from the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from bench.tournament import judging
from bench.tournament.figures import Figure, mean, quantile
from bench.tournament.plan import OURS, Cell
from bench.tournament.results import Ground, Played
from bench.tournament.score import LATE_SHARE_ALLOWED
from bench.tournament.standings import Line, Standing, known

JUDGED_GRID = 128 * 110


def figures_of(
    grounds: dict[Cell, Ground], runs: Sequence[Played], lines: Sequence[Line], standings: Sequence[Standing]
) -> Iterator[Figure]:
    """Yield each figure with its target, and over how many cells."""
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
        shares = known(own, lambda line: line.gain_share)
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
    steady = known([line for line in ours if line.cell.steady], lambda line: line.ratio)
    changing = known([line for line in ours if not line.cell.steady], lambda line: line.ratio)
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
    savings = known(slack, lambda line: line.saving)
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
    """Judge the grids that come nearest to the target's, of those that are no smaller where there are any."""
    large = [run for run in ours if run.settings_on_grid >= JUDGED_GRID] or list(ours)
    settings = min((run.settings_on_grid for run in large), default=0)
    times = [run.decide_us_p99 / 1e3 for run in large if run.settings_on_grid == settings]
    note = f"{_over(times)} with grids of {settings} settings; highest {max(times, default=0.0):.2f}"
    return Figure(
        "decide, 99th percentile in ms, median of cells",
        median(times) if times else None,
        2.0,
        least=False,
        note=note,
    )


def _over(values: Sequence[object]) -> str:
    return f"{len(values)} cell{'' if len(values) == 1 else 's'}"
