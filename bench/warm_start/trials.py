"""Cold and warm in the same cell: the same arrivals, noise and prices, with and without a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from bench.simulate.run import simulate
from bench.simulate.scenario import grid_of
from bench.tournament.ground import lay_ground, scenario_of
from bench.tournament.plan import Cell, Settings
from bench.tournament.playing import series_of
from bench.tournament.results import Series
from bench.tournament.score import Score
from bench.warm_start.settling import Settling, decisions_in_the_mean, final_rate, settling
from optimizer.foresight import check_device, prior_of, steps_of_file
from optimizer.layers.fusion import Step
from optimizer.layers.saved import load_predictor
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.targets import Targets

PRICED_S = 5.0
"""Prices are found on so many seconds of the cell's traffic, by the tournament's rule."""

RIGHT = "as predicted"
WRONG = (
    "twice too fast",
    "twice too slow",
    "twice the power",
    "the clock does not matter",
    "only the clock matters",
    "power falls with the clock",
)
"""What a prior is bent to. The last three have wrong shapes, which no level puts right."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where predictions come from: folders with `NETWORK.onnx` and `GPU.npz`."""

    networks: Path
    predictors: Path


@dataclass(frozen=True, slots=True)
class Trial:
    """One cell with one seed: where, how the prior was bent, and how both runs began."""

    cell: Cell
    seed: int
    prior: str
    cold: Settling
    warm: Settling


@dataclass(frozen=True, slots=True)
class Pace:
    """One cell: after how many decisions both starts had settled in the mean over seeds; None: never.

    By whole windows, and by their later halves, when the clock that was decided on is in force.
    """

    cell: Cell
    prior: str
    cold: int | None
    warm: int | None
    cold_in_force: int | None
    warm_in_force: int | None


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a cell: its runs, and how they began in the mean."""

    trials: tuple[Trial, ...]
    paces: tuple[Pace, ...]


def try_cell(cell: Cell, sources: Sources, seeds: int, duration_s: float, bent: tuple[str, ...]) -> Tried:
    """Play a cell cold, and warm with every prior that is named. Everything is simulated."""
    _steps(sources.networks / f"{cell.model}.onnx")
    targets = lay_ground(cell, Settings(duration_s=PRICED_S)).targets
    every = [Settings(duration_s=duration_s, seed=seed) for seed in range(seeds)]
    prior = predicted(cell, sources, grid_of(scenario_of(cell, every[0], targets)))
    cold = [_play(cell, settings, targets, None) for settings in every]
    trials, paces = [], []
    for name in bent:
        warm = [_play(cell, settings, targets, bend(prior, name)) for settings in every]
        runs = zip(every, cold, warm, strict=True)
        trials += [_trial(cell, settings, name, one, other) for settings, one, other in runs]
        paces.append(_pace(cell, name, cold, warm))
    return Tried(tuple(trials), tuple(paces))


class _Play(NamedTuple):
    series: Series
    score: Score
    later_halves: tuple[float, ...]


def _trial(cell: Cell, settings: Settings, name: str, cold: _Play, warm: _Play) -> Trial:
    final = max(final_rate(play.series.revenue) for play in (cold, warm))
    both = (settling(play.series, play.score, final, settings.interval_s) for play in (cold, warm))
    return Trial(cell, settings.seed, name, *both)


def _pace(cell: Cell, name: str, cold: Sequence[_Play], warm: Sequence[_Play]) -> Pace:
    whole = ([play.series.revenue for play in plays] for plays in (cold, warm))
    later = ([play.later_halves for play in plays] for plays in (cold, warm))
    return Pace(cell, name, *_decisions(*whole), *_decisions(*later))


def _decisions(
    cold: Sequence[Sequence[float]], warm: Sequence[Sequence[float]]
) -> tuple[int | None, int | None]:
    """Return after how many decisions both came to the higher final rate of the two."""
    final = max(fmean(map(final_rate, runs)) for runs in (cold, warm))
    return decisions_in_the_mean(cold, final), decisions_in_the_mean(warm, final)


def _play(cell: Cell, settings: Settings, targets: Targets, prior: Prior | None) -> _Play:
    scenario = scenario_of(cell, settings, targets)
    run = simulate(scenario, lambda grid: BoultonPolicy(grid, prior), halves=True)
    return _Play(series_of(run.records), Score.of(run, run.images_arrived, targets), run.later_halves)


def predicted(cell: Cell, sources: Sources, grid: OperatingGrid) -> Prior:
    """Predict a cell's network. Raises ValueError or DatasetError for a file that is missing or another's."""
    predictor = load_predictor(sources.predictors / f"{cell.gpu_name}.npz")
    check_device(predictor, cell.gpu_name, simulated=True)
    steps = _steps(sources.networks / f"{cell.model}.onnx")
    return prior_of(predictor, steps, grid.batch_limits[-1], grid.sm_clocks_mhz)


@lru_cache(maxsize=8)
def _steps(network: Path) -> tuple[Step, ...]:
    return steps_of_file(network)


def bend(prior: Prior, name: str) -> Prior:
    """Make a prior wrong in a way that has a name. Raises KeyError for another name."""
    clocks = np.array(prior.clocks_mhz)
    slower = (clocks[-1] / clocks)[None, :]
    highest_s, watts = prior.times_s[:, -1:], prior.running_w
    assert watts is not None, "the simulated predictors know power"  # noqa: S101
    bent: Mapping[str, Prior] = {
        RIGHT: prior,
        "twice too fast": replace(prior, times_s=prior.times_s / 2.0),
        "twice too slow": replace(prior, times_s=prior.times_s * 2.0),
        "twice the power": replace(prior, running_w=watts * 2.0),
        "the clock does not matter": replace(prior, times_s=highest_s * np.ones_like(slower)),
        "only the clock matters": replace(prior, times_s=highest_s[-1:] * slower * np.ones_like(highest_s)),
        "power falls with the clock": replace(prior, running_w=watts[:, ::-1].copy()),
    }
    return bent[name]
