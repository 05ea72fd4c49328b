"""The whole loop on the simulated V100, in simulated time: does it move, and does moving help?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.governor import Governor, Plant, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Decision, Policy
from optimizer.revenue import Targets
from optimizer.telemetry import DeviceReading, Traffic, Window
from optimizer.twin.arrivals import steps as poisson_steps
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

V100 = load_profile("v100")
LIMITS = (1, 2, 4, 8, 16, 32, 64, 128)
GRID = OperatingGrid(LIMITS, V100.sm_clocks_mhz)
TARGETS = Targets(slo_p99_ms=50.0)
SEEDS = (1, 2, 3)

Steps = list[tuple[float, float]]


class Ungoverned:
    """Stays at the default setting."""

    name = "default"

    def decide(self, window: Window, targets: Targets) -> Decision:
        return Decision(window.point, "as ever")


class Unmeasured:
    """A server whose device tells nothing and has no clock, as a CPU without RAPL."""

    def __init__(self, server: SimulatedServer) -> None:
        self._server = server

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        return self._server.sense(slo_ms)[0], DeviceReading()

    def act(self, point: OperatingPoint) -> None:
        assert point.sm_clock_mhz is None
        self._server.act(point)


@dataclass(frozen=True)
class Outcome:
    governor: Governor
    server: SimulatedServer
    records: list[Record]

    @property
    def revenue(self) -> float:
        return sum(record.revenue.total for record in self.records)

    @property
    def joules(self) -> float:
        return sum(record.window.device.energy.joules or 0.0 for record in self.records)

    @property
    def late_share(self) -> float:
        traffics = [record.window.traffic for record in self.records]
        return sum(traffic.late for traffic in traffics) / sum(traffic.completed for traffic in traffics)

    def clock_mhz(self, at_s: int) -> int:
        return self.records[at_s].decision.point.sm_clock_mhz or 0


def rehearse(
    policy: Policy,
    steps: Steps,
    seed: int,
    grid: OperatingGrid = GRID,
    plant: Callable[[SimulatedServer], Plant] = lambda server: server,
) -> Outcome:
    clock = SimulatedClock()
    gpu = SimulatedGpu(V100, clock=clock, rng_seed=seed)
    server = SimulatedServer(gpu, "resnet50", clock, batch_limit=grid.default.batch_limit)
    governor = Governor(plant(server), policy, grid, TARGETS, clock)
    governor.start()
    records: list[Record] = []
    arrivals = poisson_steps(steps, seed=seed)
    server.run(arrivals, sum(s for s, _ in steps), 1.0, lambda: records.append(governor.step()))
    return Outcome(governor, server, records)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_slack_the_clock_goes_down_the_slo_holds_and_more_is_earned(seed: int) -> None:
    steps = [(30.0, 1000.0)]
    governed, default = (rehearse(p, steps, seed) for p in (BoultonPolicy(GRID), Ungoverned()))
    assert governed.clock_mhz(-1) < V100.boost_clock_mhz
    assert governed.late_share < 0.01
    assert all(record.window.traffic.latency_p99_ms <= TARGETS.slo_p99_ms for record in governed.records)
    assert governed.joules < default.joules
    assert governed.revenue > default.revenue
    settled, before = governed.records[-10:], default.records[-10:]
    assert sum(r.window.device.energy.joules for r in settled) < 0.9 * sum(
        r.window.device.energy.joules for r in before
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_up_in_load_raises_clock_and_batch_again(seed: int) -> None:
    outcome = rehearse(BoultonPolicy(GRID), [(25.0, 600.0), (20.0, 4500.0)], seed)
    before, after = outcome.records[24].decision.point, outcome.records[26].decision.point
    assert after.sm_clock_mhz > before.sm_clock_mhz
    assert after.batch_limit >= before.batch_limit
    recovered = outcome.records[-10:]
    late = sum(record.window.traffic.late for record in recovered)
    assert late <= 0.01 * sum(record.window.traffic.completed for record in recovered)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_moderate_surge_pays_more_than_never_saving(seed: int) -> None:
    steps = [(40.0, 1000.0), (20.0, 2000.0), (20.0, 1000.0)]
    governed, default = (rehearse(p, steps, seed) for p in (BoultonPolicy(GRID), Ungoverned()))
    assert governed.revenue > default.revenue
    assert governed.late_share < 0.01


def test_it_stays_on_the_grid_and_stop_restores_the_default() -> None:
    outcome = rehearse(BoultonPolicy(GRID), [(20.0, 800.0)], seed=4)
    assert all(record.decision.point in GRID for record in outcome.records)
    assert outcome.governor.point != GRID.default
    outcome.governor.stop()
    outcome.server.run([], 22.0, 1e9, lambda: None)
    assert outcome.server.sense(50.0)[1].sm_clock_mhz == V100.boost_clock_mhz
    assert outcome.server._queue.batch_limit == GRID.default.batch_limit


def test_it_comes_to_rest() -> None:
    """The delay follows the load from second to second; the clock and the batch limit, which cost, do not."""
    records = rehearse(BoultonPolicy(GRID), [(60.0, 1500.0)], 5).records
    points = [GRID.default, *(record.decision.point for record in records)]
    moves = [
        (before.sm_clock_mhz, before.batch_limit) != (after.sm_clock_mhz, after.batch_limit)
        for before, after in pairwise(points)
    ]
    assert any(moves[:20]), "it went somewhere"
    assert sum(moves[-40:]) <= 2


def test_the_same_seed_gives_the_same_day() -> None:
    first, second = (rehearse(BoultonPolicy(GRID), [(10.0, 700.0)], 6).records for _ in range(2))
    assert first == second


def test_overload_ends_at_the_fast_point() -> None:
    outcome = rehearse(BoultonPolicy(GRID), [(10.0, 600.0), (10.0, 8000.0)], seed=7)
    last = outcome.records[-1].decision
    assert last.point.sm_clock_mhz == V100.boost_clock_mhz
    assert "SLO" in last.reason


def test_without_energy_and_clock_the_batch_limit_alone_moves_and_earns_no_less() -> None:
    grid = OperatingGrid((*LIMITS, 256, 512))
    steps = [(20.0, 3000.0)]
    governed = rehearse(BoultonPolicy(grid), steps, 8, grid, Unmeasured)
    default = rehearse(Ungoverned(), steps, 8, grid, Unmeasured)
    assert all(record.revenue.excludes_energy for record in governed.records)
    assert governed.governor.point.batch_limit < grid.default.batch_limit, "two full ones would miss the SLO"
    assert governed.late_share <= default.late_share
    assert governed.revenue >= 0.999 * default.revenue
