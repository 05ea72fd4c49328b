"""Joule Point (2026): one static power cap, the energy-optimal one but never below what the SLO needs.

The cap is max(P*, P_SLO): P* spends the least energy an image under full load, P_SLO is the lowest that keeps
the SLO. Found offline, once.

Here the cap is a clock, to which it is equivalent in a steady state. Left open there, chosen here: it is
tuned to the one network that is served rather than to all of the card, and the batch limit is searched with
it; the SLO holds when two full batches fit into it and, where the operator knows the peak of the load, a
tenth of the throughput is left over at that peak.
"""

from __future__ import annotations

from bisect import bisect_left

from optimizer.operating_point import OperatingGrid
from optimizer.policies.fixed import FixedPolicy
from optimizer.policies.rivals.static_best import static_best
from optimizer.policies.rivals.sweep import OfflineSweep, Trial, try_clocks
from optimizer.revenue import Targets


def joule_point(grid: OperatingGrid, targets: Targets, sweep: OfflineSweep) -> FixedPolicy:
    """Return the policy that keeps max(f*, f_SLO) at the batch limit where an image then costs the least.

    Where nothing keeps the SLO it is the setting of `static_best`.
    """
    found = [trial for limit in grid.batch_limits if (trial := _best(grid, targets, sweep, limit))]
    if not found:
        fallback = static_best(grid, targets, sweep)
        return FixedPolicy("joule-point", fallback.point, fallback.reason)
    best = min(found, key=lambda trial: trial.joules_per_image)
    return FixedPolicy("joule-point", best.point, f"{best.joules_per_image:.3g} J an image, offline")


def _best(grid: OperatingGrid, targets: Targets, sweep: OfflineSweep, batch_limit: int) -> Trial | None:
    """Return the higher of the energy-optimal clock and the lowest that keeps the SLO; None: none does."""
    trials = try_clocks(grid, sweep, batch_limit)
    optimum = min(range(len(trials)), key=lambda index: trials[index].joules_per_image)
    peak = sweep.peak_images_per_s
    slowest = bisect_left(trials, True, key=lambda t: t.answers_in_time(targets) and t.carries(peak))
    return trials[max(optimum, slowest)] if slowest < len(trials) else None
