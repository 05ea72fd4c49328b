"""Rehearsing: a policy in the production loop, or one setting throughout."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from bench.simulate.account import Account, Floats, settle, turns_s
from bench.simulate.fixed_settings import FixedSettings
from bench.simulate.later_halves import LOOKS, LaterHalves
from bench.simulate.scenario import Scenario, grid_of
from optimizer.devices.simulated import SimulatedGpu
from optimizer.governor import Governor, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision, Learner, Policy
from optimizer.targets import Targets
from optimizer.telemetry import Window
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

MakePolicy = Callable[[OperatingGrid], Policy]
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a rehearsal came to. Everything about energy is simulated.

    Args:
        policy: who decided; a fixed setting is called by its text.
        images_arrived: all of them.
        images_completed: those answered before the end.
        images_late: those not answered within the SLO.
        latency_ms: p50, p95 and p99 of those answered; None when none was.
        energy_j: the GPU's, idle included, counted exactly.
        images_per_joule: images completed over energy.
        revenue: of the whole, by the form of the targets.
        clock_changes: how often another clock was asked for.
        decide_us_p99: processor time of a decision, in microseconds of this machine.
        records: every turn of the governor.
        real_time_factor: seconds simulated in a second of this machine.
        peak_power_w: highest mean power of one interval.
        state: what the policy had learned at the end; None when it does not learn.
        later_halves: what the later half of each interval earned a second, exactly; empty unless asked for.
    """

    policy: str
    images_arrived: int
    images_completed: int
    images_late: int
    latency_ms: Mapping[str, float | None]
    energy_j: float
    images_per_joule: float
    revenue: float
    clock_changes: int = 0
    decide_us_p99: float = 0.0
    records: tuple[Record, ...] = ()
    real_time_factor: float = 0.0
    peak_power_w: float = 0.0
    state: Mapping[str, object] | None = None
    later_halves: tuple[float, ...] = ()


def simulate(
    scenario: Scenario,
    make: MakePolicy,
    initial_state: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    *,
    halves: bool = False,
) -> Run:
    """Let a policy govern the scenario in the production loop, starting at the default setting.

    Args:
        scenario: what to rehearse.
        make: returns the policy for a grid.
        initial_state: what the policy learned earlier; ignored by policies that do not learn.
        progress: called with the simulated time after every decision.
        halves: whether to look at the later half of each interval by itself; for plain energy prices.

    Raises ValueError when the policy cannot use `initial_state`.
    """
    grid = grid_of(scenario)
    policy = make(grid)
    if initial_state is not None and isinstance(policy, Learner):
        policy.import_state(initial_state)
    stage, timed = _Stage(scenario, 0.0), _TimedPolicy(policy)
    governor = Governor(stage.server, timed, grid, scenario.targets, stage.clock)
    governor.hear = lambda: _hear(governor)
    governor.start()
    records: list[Record] = []
    account = stage.play(lambda: records.append(governor.step()), progress, halves=halves)
    return replace(
        _totals(scenario, policy.name, account, stage.wall_s),
        clock_changes=stage.server.clock_changes,
        decide_us_p99=timed.p99_us,
        records=tuple(records),
        later_halves=tuple(stage.later_halves),
        state=policy.export_state() if isinstance(policy, Learner) else None,
    )


def simulate_at(scenario: Scenario, point: OperatingPoint, progress: Progress | None = None) -> Run:
    """Run the production queue at one setting, in force from the beginning."""
    stage = _Stage(scenario, -1.0 - scenario.profile.clock_switch_s[1])
    stage.server.act(point)
    account = stage.play(lambda: None, progress)
    return _totals(scenario, str(point), account, stage.wall_s)


def simulate_fixed(scenario: Scenario, point: OperatingPoint) -> Run:
    """Run at one setting, batch by batch: what `simulate_at` does, much faster.

    The same to the last digit but for noise, which is drawn in another order. With deadlines or a delay, it
    is `simulate_at`.
    """
    if scenario.deadline_s is not None or point.max_delay_ms:
        return simulate_at(scenario, point)
    began_s = time.perf_counter()
    account = FixedSettings(scenario).serve(point).account
    return _totals(scenario, str(point), account, time.perf_counter() - began_s)


def _hear(governor: Governor) -> None:
    governor.alarm()


class _Stage:
    """A server on a simulated GPU, ready at a time that may lie before the first arrival."""

    def __init__(self, scenario: Scenario, start_s: float) -> None:
        self._scenario = scenario
        self.clock = SimulatedClock(start_s)
        self.gpu = SimulatedGpu(scenario.profile, clock=self.clock, rng_seed=scenario.seed)
        for slowdown in scenario.slowdowns:
            self.gpu.slow_down(slowdown)
        self.server = SimulatedServer(
            self.gpu,
            scenario.model,
            self.clock,
            batch_limit=scenario.max_batch,
            max_queue_images=max(1, scenario.arrivals_s.size),
            deadline_s=scenario.deadline_s,
        )
        self.wall_s = 0.0
        self.later_halves: list[float] = []

    def play(self, turn: Callable[[], object], progress: Progress | None, *, halves: bool = False) -> Account:
        """Run to the end, with a turn of the governor after every interval; note what later halves earn."""
        scenario, used_j = self._scenario, [0.0]

        def each() -> None:
            turn()
            used_j.append(self.gpu.used_j())
            if progress is not None:
                progress(self.clock.now_s)

        began_s = time.perf_counter()
        self.server.run((), 0.0, scenario.interval_s, each=lambda: None)
        self.server.run(scenario.arrivals_s, scenario.end_s, *self._looks(each, halves=halves))
        self.wall_s = time.perf_counter() - began_s
        return settle(scenario, self.server.latencies_ms, self._until_the_end(used_j))

    def _looks(self, each: Callable[[], None], *, halves: bool) -> tuple[float, Callable[[], None]]:
        """Return how often to look, and how."""
        interval_s = self._scenario.interval_s
        if not halves:
            return interval_s, each
        half_s = interval_s / LOOKS
        later = LaterHalves(self.server, self.gpu, self._scenario.targets, half_s, each)
        self.later_halves = later.revenue
        return half_s, later.look

    def _until_the_end(self, used_j: list[float]) -> Floats:
        edges = turns_s(self._scenario).size
        return np.array([*used_j[: edges - 1], self.gpu.used_j()])


class _TimedPolicy:
    """A policy whose decisions are timed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._took_s: list[float] = []

    @property
    def name(self) -> str:
        return self._policy.name

    @property
    def p99_us(self) -> float:
        """Processor time of the slowest decision in a hundred, 0 when none was made.

        Not the time by the clock: a machine that simulates on all cores would count what else it does.
        """
        return float(np.quantile(self._took_s, 0.99)) * 1e6 if self._took_s else 0.0

    def decide(self, window: Window, targets: Targets) -> Decision:
        with _collector_at_rest():
            began_s = time.thread_time()
            decision = self._policy.decide(window, targets)
            self._took_s.append(time.thread_time() - began_s)
        return decision


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep the cycle collector from going through a simulation's long lists at a decision's cost.

    It takes milliseconds for them, and starts wherever enough objects were made. A daemon has none of these.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _totals(scenario: Scenario, name: str, account: Account, wall_s: float) -> Run:
    return Run(
        policy=name,
        images_arrived=int(scenario.arrivals_s.size),
        images_completed=account.images_completed,
        images_late=account.images_late,
        latency_ms=account.latency_ms,
        energy_j=account.energy_j,
        images_per_joule=account.images_completed / account.energy_j if account.energy_j else 0.0,
        revenue=account.revenue,
        peak_power_w=account.peak_power_w,
        real_time_factor=scenario.end_s / wall_s,
    )
