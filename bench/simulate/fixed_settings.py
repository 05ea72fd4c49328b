"""Running one scenario at many fixed settings: what they share is prepared once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.simulate.account import Account, settle, turns_s
from bench.simulate.scenario import Scenario
from optimizer.operating_point import OperatingPoint
from optimizer.twin.fixed_setting import BatchCosts, batch_costs, batch_noise, energy_until, serve_fixed
from optimizer.twin.slowdown import edges_s, held_mhz


@dataclass(frozen=True, slots=True)
class FixedRun:
    """The totals at a setting. A larger batch limit than `largest_batch` would have changed nothing."""

    account: Account
    largest_batch: int


class FixedSettings:
    """Serves one scenario, without deadlines, at one setting after another."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._arrivals_s = scenario.arrivals_s.tolist()
        self._noise = batch_noise(scenario.profile, len(self._arrivals_s), scenario.seed)
        self._turns_s = turns_s(scenario)
        self._costs = lru_cache(maxsize=None)(self._costs_at)

    def serve(self, point: OperatingPoint) -> FixedRun:
        """Return the totals at a setting; its delay is taken to be 0."""
        scenario, profile = self._scenario, self._scenario.profile
        (_, costs), *later = self._course(point.sm_clock_mhz or profile.boost_clock_mhz)
        batches = serve_fixed(self._arrivals_s, point.batch_limit, costs, self._noise, scenario.end_s, later)
        answered = batches.images[batches.ends_s <= scenario.end_s]
        ends_s = np.repeat(batches.ends_s[: answered.size], answered)
        latencies_ms = (ends_s - scenario.arrivals_s[: ends_s.size]) * 1e3
        used_j = energy_until(batches, profile.idle_power_w, self._turns_s)
        return FixedRun(settle(scenario, latencies_ms, used_j), int(batches.images.max(initial=1)))

    def _course(self, asked_mhz: int) -> list[tuple[float, BatchCosts]]:
        """Return what batches cost from when on, where the card is slowed down now and then."""
        slowdowns = self._scenario.slowdowns
        times_s = [0.0, *(edge_s for edge_s in edges_s(slowdowns) if edge_s > 0.0)]
        return [(time_s, self._costs(held_mhz(slowdowns, asked_mhz, time_s))) for time_s in times_s]

    def _costs_at(self, clock_mhz: int) -> BatchCosts:
        scenario = self._scenario
        return batch_costs(scenario.profile, scenario.model, clock_mhz, scenario.max_batch)
