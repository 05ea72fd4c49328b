"""What a decision costs in processor time: `BoultonPolicy.decide` on a grid of 128 batches x 110 clocks.

    python -m bench.governor.decide_cost [--quick] [--rounds N] [--seconds S] [--save]

A simulated V100 is governed through a day of traffic that lasts `--seconds` decisions, as in production; its
windows are kept, and then decided on again, once a round, by a policy that knows nothing yet. So a round has
every state that a policy comes through, from the first batch to a full memory. The V100 has 187 clocks; its
highest 110 are the grid of the target, and all of them are measured beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console

from bench.serving import command
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, in_turns
from bench.serving.settings import Settings
from bench.simulate.run import simulate
from bench.simulate.scenario import Scenario, grid_of
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Decision
from optimizer.targets import Targets
from optimizer.telemetry import Window
from optimizer.twin.arrivals import diurnal
from optimizer.twin.profile import load_profile

GPU, NETWORK, MAX_BATCH = "v100", "resnet50", 128
CLOCKS = 110
AT_MOST_MS = 2.0
DECISIONS_A_SECOND_OF_ROUND = 60
_RATE_PER_S, _SWING = 900.0, 0.9
_TARGETS = Targets(slo_p99_ms=100.0, price_per_1000_images=0.01, energy_price_per_kwh=0.3)


@dataclass(frozen=True, slots=True)
class Recording:
    """Windows that were measured one after the other, and the settings that they were chosen from."""

    grid: OperatingGrid
    windows: Sequence[Window]

    def __str__(self) -> str:
        limits, clocks = len(self.grid.batch_limits), len(self.grid.sm_clocks_mhz)
        return f"{limits} batches x {clocks} clocks"


def run(settings: Settings, console: Console) -> Result:
    """Record, then decide again."""
    decisions = max(20, round(settings.seconds * DECISIONS_A_SECOND_OF_ROUND))
    recordings = [record(clocks, decisions) for clocks in (CLOCKS, None)]
    turns = {str(each): lambda each=each: decide_ms(each) for each in recordings}
    found = in_turns(turns, settings.rounds, console)
    figures = [
        figure
        for each, at_most in zip(recordings, (AT_MOST_MS, None), strict=True)
        for figure in _figures(str(each), found[str(each)], at_most)
    ]
    conditions = (
        f"simulated {GPU}, {NETWORK}, a day of traffic in {decisions} decisions, from an empty memory",
        "processor time of the deciding thread (CLOCK_THREAD_CPUTIME_ID)",
    )
    return Result("decide", "What a decision costs", figures, conditions)


def record(clocks: int | None, decisions: int) -> Recording:
    """Let the policy govern, a decision a second.

    Args:
        clocks: how many of the GPU's highest clocks it may set; None for all.
        decisions: how many it makes.
    """
    scenario = _scenario(clocks, decisions)
    windows: list[Window] = []
    simulate(scenario, lambda grid: _Listener(grid, windows))
    return Recording(grid_of(scenario), windows)


def decide_ms(recording: Recording) -> list[float]:
    """Return the milliseconds of processor time that every decision took a fresh policy."""
    policy, took_ms = BoultonPolicy(recording.grid), []
    for window in recording.windows:
        began_ns = time.thread_time_ns()
        policy.decide(window, _TARGETS)
        took_ms.append((time.thread_time_ns() - began_ns) / 1e6)
    return took_ms


def _figures(what: str, rounds: Sequence[Sequence[float]], at_most_ms: float | None) -> list[Figure]:
    p50, p99 = (Spread.of([float(np.percentile(took, rank)) for took in rounds]) for rank in (50, 99))
    return [Figure(f"{what}, p50", p50, "ms"), Figure(f"{what}, p99", p99, "ms", at_most=at_most_ms)]


def _scenario(clocks: int | None, decisions: int) -> Scenario:
    profile = load_profile(GPU)
    axis = profile.sm_clocks_mhz[-(clocks or 0) :]
    arrivals_s = diurnal(_RATE_PER_S, _SWING, float(decisions), float(decisions), seed=1)
    profile = replace(profile, sm_clocks_mhz=axis)
    return Scenario(profile, NETWORK, arrivals_s, float(decisions), _TARGETS, seed=1, max_batch=MAX_BATCH)


class _Listener:
    """The policy, and who keeps the windows that it was shown."""

    def __init__(self, grid: OperatingGrid, windows: list[Window]) -> None:
        self._policy, self._windows = BoultonPolicy(grid), windows

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, window: Window, targets: Targets) -> Decision:
        self._windows.append(window)
        return self._policy.decide(window, targets)


if __name__ == "__main__":
    command.main(run, __doc__)
