"""Triton Model Analyzer: sweeps the settings offline and keeps the best that meets the latency budget.

The tool's default objective is throughput, its knobs are the batch size and the number of instances; the
clock stays at boost. Instances of one network on one card share its units, so there is one here. The tool
loads the server with twice as many requests as fit into its batches; an image then waits for the batch that
runs and for its own, which is the latency held against the budget.
"""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid
from optimizer.policies.fixed import FixedPolicy
from optimizer.policies.rivals.sweep import OfflineSweep, try_clocks
from optimizer.revenue import Targets


def static_best(grid: OperatingGrid, targets: Targets, sweep: OfflineSweep) -> FixedPolicy:
    """Return the policy that keeps the batch limit of the most throughput within the SLO, at boost clock.

    Where no batch size keeps the SLO, the quickest is kept.
    """
    trials = [try_clocks(grid, sweep, limit)[-1] for limit in grid.batch_limits]
    fit = [trial for trial in trials if trial.answers_in_time(targets)]
    if not fit:
        quickest = min(trials, key=lambda trial: trial.batch_s)
        return FixedPolicy("static-best", quickest.point, "nothing keeps the SLO, this comes closest")
    best = max(fit, key=lambda trial: trial.images_per_s)
    return FixedPolicy("static-best", best.point, f"{best.images_per_s:.0f} images/s within the SLO, offline")
