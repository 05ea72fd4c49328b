"""What a set of trainings says: del Rey et al.'s questions, asked of any runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median

from bench.study.runs import Cell, Measure, Run, by_cell, grouped, measure_of
from bench.study.statistics import (
    LEAST_TO_CORRELATE,
    Correlation,
    Difference,
    Saving,
    correlation,
    difference,
    saving,
)


@dataclass(frozen=True, slots=True)
class CellSummary:
    """A cell in medians (`gpu_use` is a mean); `cost` is of one image, in the study's measure.

    `best` says that nothing else on this device, at any batch size, is at least as good in both F1 and cost.
    """

    cell: Cell
    runs: int
    cost: float
    f1: float
    accuracy: float
    seconds: float
    joules: float | None
    gigaflops: float | None
    gpu_use: float | None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one network saves in place of another under equal other settings, and the F1 that it loses."""

    gpu: str
    batch_size: int
    dear: str
    cheap: str
    saving: Saving
    f1_lost: float


@dataclass(frozen=True, slots=True)
class Related:
    """Two figures correlated on one device: over runs, and over the medians of cells.

    Runs of a network are alike, so those over medians are the sterner test.
    """

    gpu: str
    runs: Correlation
    cells: Correlation


@dataclass(frozen=True, slots=True)
class Compared:
    """Groups of runs compared under equal other settings, which `within` names."""

    within: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Fit:
    """How a device suits a network: its use, and what an image costs there over the cheapest device's."""

    architecture: str
    batch_size: int
    gpu: str
    gpu_use: float | None
    cost: float
    over_best: float


@dataclass(frozen=True, slots=True)
class FitTrend:
    """Over networks: use of a device against what they cost there, compared with another device.

    A negative rho says: the better a network fills this device, the less it wastes there.
    """

    gpu: str
    against: str
    correlation: Correlation


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is found in a set of runs. Tuples are empty where the runs cannot tell."""

    measure: str
    unit: str
    cells: tuple[CellSummary, ...]
    exchanges: tuple[Exchange, ...]
    correctness: tuple[Related, ...]
    flops: tuple[Related, ...]
    architectures: tuple[Compared, ...]
    devices: tuple[Compared, ...]
    batch_sizes: tuple[Compared, ...]
    fits: tuple[Fit, ...]
    fit_trends: tuple[FitTrend, ...]


def find(runs: Sequence[Run]) -> Findings:
    """Return what the runs say. They hold at least one run."""
    measure = measure_of(runs)
    cells = _summaries(runs, measure)
    fits = _fits(cells)
    return Findings(
        measure=measure.name,
        unit=measure.unit,
        cells=cells,
        exchanges=_exchanges(runs, measure),
        correctness=_related(runs, cells, measure, lambda run: run.f1, lambda cell: cell.f1),
        flops=_related(
            [run for run in runs if run.gigaflops is not None],
            [cell for cell in cells if cell.gigaflops is not None],
            measure,
            lambda run: run.gigaflops or 0.0,
            lambda cell: cell.gigaflops or 0.0,
        ),
        architectures=_compared(
            runs, measure, lambda cell: f"{cell.gpu}, batch {cell.batch_size}", lambda cell: cell.architecture
        ),
        devices=_compared(
            runs, measure, lambda cell: f"{cell.architecture}, batch {cell.batch_size}", lambda cell: cell.gpu
        ),
        batch_sizes=_compared(
            runs,
            measure,
            lambda cell: f"{cell.architecture}, {cell.gpu}",
            lambda cell: f"batch {cell.batch_size}",
        ),
        fits=fits,
        fit_trends=_fit_trends(fits),
    )


def exchange(runs: Sequence[Run], gpu: str, dear: str, cheap: str, measure: Measure) -> Exchange | None:
    """Return what `cheap` saves in place of `dear`; None when one of them was not run there."""
    own = {
        name: [run for run in runs if (run.gpu, run.architecture) == (gpu, name)] for name in (dear, cheap)
    }
    if not all(own.values()):
        return None
    return _exchange(gpu, own[dear][0].batch_size, own[dear], own[cheap], measure)


# One cell


def _summaries(runs: Sequence[Run], measure: Measure) -> tuple[CellSummary, ...]:
    summaries = [_summary(cell, own, measure) for cell, own in by_cell(runs).items()]
    return tuple(
        replace(own, best=not any(_dominates(other, own) for other in summaries)) for own in summaries
    )


def _summary(cell: Cell, own: Sequence[Run], measure: Measure) -> CellSummary:
    joules = [run.energy.joules for run in own if run.energy.joules is not None]
    uses = [run.gpu_use for run in own if run.gpu_use is not None]
    flops = [run.gigaflops for run in own if run.gigaflops is not None]
    return CellSummary(
        cell,
        runs=len(own),
        cost=median(measure.of(run) for run in own),
        f1=median(run.f1 for run in own),
        accuracy=median(run.accuracy for run in own),
        seconds=median(run.duration_s for run in own),
        joules=median(joules) if joules else None,
        gigaflops=median(flops) if flops else None,
        gpu_use=fmean(uses) if uses else None,
    )


def _dominates(other: CellSummary, own: CellSummary) -> bool:
    same_device = other.cell.gpu == own.cell.gpu
    no_worse = other.f1 >= own.f1 and other.cost <= own.cost
    return same_device and no_worse and (other.f1 > own.f1 or other.cost < own.cost)


# Networks against each other


def _exchanges(runs: Sequence[Run], measure: Measure) -> tuple[Exchange, ...]:
    """The dearest network for the cheapest, on every device at every batch size."""
    found = []
    for (gpu, size), own in grouped(runs, lambda run: (run.gpu, run.batch_size)).items():
        nets = grouped(own, lambda run: run.architecture)
        ranked = sorted(nets.values(), key=lambda runs: median(measure.of(run) for run in runs))
        if len(ranked) > 1:
            found.append(_exchange(gpu, size, ranked[-1], ranked[0], measure))
    return tuple(found)


def _exchange(gpu: str, size: int, dear: Sequence[Run], cheap: Sequence[Run], measure: Measure) -> Exchange:
    saved = saving([measure.of(run) for run in dear], [measure.of(run) for run in cheap])
    lost = median(run.f1 for run in dear) - median(run.f1 for run in cheap)
    return Exchange(gpu, size, dear[0].architecture, cheap[0].architecture, saved, lost)


def _related(
    runs: Sequence[Run],
    cells: Sequence[CellSummary],
    measure: Measure,
    of_run: Callable[[Run], float],
    of_cell: Callable[[CellSummary], float],
) -> tuple[Related, ...]:
    found = []
    for gpu, own in grouped(runs, lambda run: run.gpu).items():
        there = [cell for cell in cells if cell.cell.gpu == gpu]
        over_runs = correlation([of_run(run) for run in own], [measure.of(run) for run in own])
        over_cells = correlation([of_cell(cell) for cell in there], [cell.cost for cell in there])
        found.append(Related(gpu, over_runs, over_cells))
    return tuple(found)


def _compared(
    runs: Sequence[Run], measure: Measure, within: Callable[[Cell], str], between: Callable[[Cell], str]
) -> tuple[Compared, ...]:
    found = []
    for name, own in grouped(runs, lambda run: within(run.cell)).items():
        groups = grouped(own, lambda run: between(run.cell))
        tested = difference(
            {group: [measure.of(run) for run in members] for group, members in groups.items()}
        )
        if tested is not None:
            found.append(Compared(name, tested))
    return tuple(found)


# Devices against networks


def _fits(cells: Sequence[CellSummary]) -> tuple[Fit, ...]:
    found = []
    for own in cells:
        same = (own.cell.architecture, own.cell.batch_size)
        peers = [cell.cost for cell in cells if (cell.cell.architecture, cell.cell.batch_size) == same]
        if len(peers) > 1:
            found.append(Fit(*same, own.cell.gpu, own.gpu_use, own.cost, own.cost / min(peers)))
    return tuple(sorted(found, key=lambda fit: (fit.architecture, fit.batch_size, fit.cost)))


def _fit_trends(fits: Sequence[Fit]) -> tuple[FitTrend, ...]:
    """For every two devices, on the one that the same networks use less: it has more to waste."""
    found = []
    for pair in combinations(sorted({fit.gpu for fit in fits}), 2):
        by_gpu = [{(fit.architecture, fit.batch_size): fit for fit in fits if fit.gpu == gpu} for gpu in pair]
        shared = [key for key in by_gpu[0] if key in by_gpu[1]]
        uses = [[own[key].gpu_use for key in shared] for own in by_gpu]
        if len(shared) < LEAST_TO_CORRELATE or any(use is None for own in uses for use in own):
            continue
        idle = min((0, 1), key=lambda side: sum(use or 0.0 for use in uses[side]))
        costs = [by_gpu[idle][key].cost / by_gpu[1 - idle][key].cost for key in shared]
        trend = correlation([use or 0.0 for use in uses[idle]], costs)
        found.append(FitTrend(pair[idle], pair[1 - idle], trend))
    return tuple(found)
