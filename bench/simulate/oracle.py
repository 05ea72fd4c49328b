"""The best single setting in hindsight, found in the same simulator; `search` says how."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bench.simulate.fixed_settings import FixedSettings
from bench.simulate.memory import Memory
from bench.simulate.run import Run, simulate_at, simulate_fixed
from bench.simulate.scenario import Scenario
from bench.simulate.search import Progress, RunAll, Trial, Value, best_setting
from optimizer.operating_point import OperatingPoint

CAP_TOLERANCE = 0.02
"""Traffic is random: the mean power of one interval may exceed the cap by this share."""
_PARALLEL_ABOVE = 20_000
"""Images above which a run takes longer than handing it to another process."""


def static_oracle(
    scenario: Scenario,
    *,
    processes: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[OperatingPoint, Run]:
    """Return the setting that would have earned the most had it been in force throughout, and its run.

    Args:
        scenario: what is searched.
        processes: how many share the search; None: as many as there are cores, one inside another's child.
        cache: a folder in which the winner is remembered for the same scenario and the same code.
        progress: called with the number of settings tried so far.
    """
    known = None if cache is None else Memory(cache, scenario)
    point = known.recall() if known is not None else None
    if point is None:
        with _runner(scenario, processes) as run:
            point = best_setting(scenario.max_batch, scenario.profile.sm_clocks_mhz, run, progress)
        if known is not None:
            known.remember(point)
    return point, simulate_fixed(scenario, point)


@contextmanager
def _runner(scenario: Scenario, processes: int | None) -> Iterator[RunAll]:
    count = processes or _processes(scenario)
    if count == 1:
        trial = _trial_of(scenario)
        yield lambda points: map(trial, points)
        return
    with ProcessPoolExecutor(count, initializer=_prepare, initargs=(scenario,)) as pool:
        yield lambda points: pool.map(_trial_here, points, chunksize=max(1, len(points) // (4 * count)))


def _processes(scenario: Scenario) -> int:
    if multiprocessing.parent_process() is not None or scenario.arrivals_s.size < _PARALLEL_ABOVE:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _trial_of(scenario: Scenario) -> Callable[[OperatingPoint], Trial]:
    if scenario.deadline_s is not None:
        return partial(_patient_trial, scenario)
    return partial(_trial, scenario, FixedSettings(scenario))


def _patient_trial(scenario: Scenario, point: OperatingPoint) -> Trial:
    run = simulate_at(scenario, point)
    return Trial(_value(scenario, run.peak_power_w, run.revenue), point.batch_limit)


def _trial(scenario: Scenario, settings: FixedSettings, point: OperatingPoint) -> Trial:
    fixed = settings.serve(point)
    account = fixed.account
    return Trial(_value(scenario, account.peak_power_w, account.revenue), fixed.largest_batch)


def _value(scenario: Scenario, peak_power_w: float, revenue: float) -> Value:
    cap_w = scenario.targets.power_cap_w
    allowed_w = np.inf if cap_w is None else cap_w * (1.0 + CAP_TOLERANCE)
    return min(0.0, float(allowed_w - peak_power_w)), revenue


_in_this_process: list[Callable[[OperatingPoint], Trial]] = []
"""What a process of the pool runs: set once, when the process starts."""


def _prepare(scenario: Scenario) -> None:
    _in_this_process[:] = [_trial_of(scenario)]


def _trial_here(point: OperatingPoint) -> Trial:
    return _in_this_process[0](point)
