"""What a whole rehearsal comes to: counted exactly, as no sensor could."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.simulate.scenario import Scenario
from optimizer.energy_price import PriceSchedule
from optimizer.revenue import Outcome, score
from optimizer.targets import Targets

Floats = NDArray[np.float64]

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Account:
    """Totals from the first arrival to the end of the drain. Quantiles are None when nothing was answered.

    `peak_power_w` is the highest mean power of one interval between two decisions. `mean_latency_ms` is that
    of the images answered, 0 when none was.
    """

    images_completed: int
    images_late: int
    latency_ms: Mapping[str, float | None]
    energy_j: float
    peak_power_w: float
    revenue: float
    mean_latency_ms: float = 0.0


def turns_s(scenario: Scenario) -> Floats:
    """Return the edges of the intervals between decisions, from 0 to the end, where one may be cut short."""
    whole = np.arange(0.0, scenario.end_s, scenario.interval_s)
    return np.append(whole, scenario.end_s)


def settle(scenario: Scenario, latencies_ms: Floats, used_j: Floats) -> Account:
    """Count and score a rehearsal.

    Args:
        scenario: what was rehearsed.
        latencies_ms: of every image that was answered.
        used_j: energy used from the beginning up to each of `turns_s`.
    """
    targets, edges_s, completed = scenario.targets, turns_s(scenario), latencies_ms.size
    in_time = int((latencies_ms <= targets.slo_p99_ms).sum())
    late = scenario.arrivals_s.size - in_time
    outcome = Outcome(
        duration_s=scenario.end_s,
        in_time=float(in_time),
        late=float(late),
        joules=float(used_j[-1]),
        latency_ms=float(latencies_ms.mean()) if completed else 0.0,
    )
    return Account(
        images_completed=completed,
        images_late=late,
        latency_ms=_quantiles(latencies_ms),
        energy_j=float(used_j[-1]),
        peak_power_w=float(np.max(np.diff(used_j) / np.diff(edges_s))),
        revenue=float(score(averaged(targets, edges_s, used_j), outcome).total),
        mean_latency_ms=outcome.latency_ms,
    )


def averaged(targets: Targets, edges_s: Floats, used_j: Floats) -> Targets:
    """Return the targets with the price that each joule cost on average: what all of them cost stays."""
    if not isinstance(targets.energy_price_per_kwh, PriceSchedule):
        return targets
    prices = [targets.energy_price_per_kwh.at(start_s) for start_s in edges_s[:-1].tolist()]
    joules = np.diff(used_j)
    mean = float(np.average(prices, weights=joules)) if joules.sum() > 0.0 else prices[0]
    return replace(targets, energy_price_per_kwh=mean)


def _quantiles(latencies_ms: Floats) -> dict[str, float | None]:
    if not latencies_ms.size:
        return dict.fromkeys(QUANTILES)
    values = np.quantile(latencies_ms, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, values.tolist(), strict=True))
