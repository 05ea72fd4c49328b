"""A policy plays a cell, in the production loop."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from bench.simulate.run import Run, simulate
from bench.simulate.scenario import Scenario, grid_of
from bench.tournament import traffic
from bench.tournament.ground import code_digest, scenario_of
from bench.tournament.plan import Settings
from bench.tournament.results import Ground, Played, Series
from bench.tournament.score import Score
from bench.tournament.store import fingerprint_of
from optimizer.governor import Record
from optimizer.operating_point import OperatingGrid
from optimizer.policies.policy import Policy
from optimizer.policies.registry import OfflineSweep, make_policy
from optimizer.revenue import late_images

WARM_S = 60.0
_DIGITS = 6


def played_fingerprint(ground: Ground) -> str:
    """Return a digest of what runs in this cell depend on: its own, and the price that was found for it."""
    return fingerprint_of([ground.fingerprint, f"{ground.price_per_1000_images:.9g}"])


def play(ground: Ground, policy: str, settings: Settings) -> Played:
    """Simulate a policy in a cell. Raises whatever the policy raises."""
    began_s, scenario = time.monotonic(), scenario_of(ground.cell, settings, ground.targets)
    run = _run(ground, policy, scenario)
    return Played(
        cell=ground.cell,
        policy=policy,
        fingerprint=played_fingerprint(ground),
        code=code_digest(),
        score=Score.of(run, run.images_arrived, ground.targets),
        clock_changes=run.clock_changes,
        decide_us_p99=run.decide_us_p99,
        settings_on_grid=len(grid_of(scenario)),
        real_time_factor=run.real_time_factor,
        series=series_of(run.records),
        warm=_warm(ground, policy, settings, run),
        seconds=time.monotonic() - began_s,
    )


def _run(ground: Ground, policy: str, scenario: Scenario, state: dict[str, object] | None = None) -> Run:
    physics = scenario.profile.model(ground.cell.model)
    sweep = OfflineSweep(
        batch_s=physics.batch_s,
        busy_power_w=physics.busy_power_w,
        idle_power_w=scenario.profile.idle_power_w,
        power_limit_w=scenario.profile.power_limit_w,
        peak_images_per_s=traffic.peak_rate(ground.cell.traffic, ground.capacity),
    )

    def make(grid: OperatingGrid) -> Policy:
        return make_policy(policy, grid, ground.targets, sweep)

    return simulate(scenario, make, state)


def _warm(ground: Ground, policy: str, settings: Settings, cold: Run) -> Series | None:
    """Start again with what was learned, as a restart would find it; only where the rate is steady."""
    if cold.state is None or not ground.cell.steady:
        return None
    again = replace(settings, duration_s=min(WARM_S, settings.duration_s), seed=settings.seed + 1)
    scenario = scenario_of(ground.cell, again, ground.targets)
    state = json.loads(json.dumps(cold.state))
    return series_of(_run(ground, policy, scenario, state).records)


def series_of(records: Sequence[Record]) -> Series:
    """Keep of every window what plots and judgements need."""
    windows = [record.window for record in records]
    return Series(
        end_s=[round(window.end_s, _DIGITS) for window in windows],
        batch_limit=[window.point.batch_limit for window in windows],
        max_delay_ms=[round(window.point.max_delay_ms, _DIGITS) for window in windows],
        sm_clock_mhz=[window.point.sm_clock_mhz for window in windows],
        arrived=[window.traffic.arrived for window in windows],
        late=[late_images(window.traffic) for window in windows],
        joules=[round(window.device.energy.joules or 0.0, _DIGITS) for window in windows],
        revenue=[record.revenue.total for record in records],
    )
