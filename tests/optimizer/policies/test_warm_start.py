"""Starting from a prediction, right or wrong, on simulated GPUs: sooner, and never worse for long."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.devices.simulated import SimulatedGpu
from optimizer.governor import Governor, Record
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.revenue import Targets
from optimizer.telemetry import EventReason
from optimizer.twin.arrivals import steps as poisson_steps
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

Array = NDArray[np.float64]
A100 = load_profile("a100")
GRID = OperatingGrid(tuple(range(1, 129)), A100.sm_clocks_mhz)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = 45
TARGETS = Targets(slo_p99_ms=20.0, price_per_1000_images=4e-4, late_penalty_per_1000_images=4e-4)
LOADS = (600.0, 3000.0)


def truth(model: str = "resnet50") -> Prior:
    """What the twin does, as a prediction that errs nowhere."""
    physics, clocks = A100.model(model), tuple(map(float, GRID.sm_clocks_mhz))
    times_s = np.array([[physics.batch_s(size, clock) for clock in clocks] for size in SIZES])
    watts = np.array([[physics.busy_power_w(size, clock) for clock in clocks] for size in SIZES])
    return Prior(SIZES, clocks, times_s, watts, 0.1)


def bent(prior: Prior, times: Callable[[Array, Array], Array]) -> Prior:
    slower = prior.clocks_mhz[-1] / np.array(prior.clocks_mhz)[None, :]
    return replace(prior, times_s=times(prior.times_s, slower))


def watts(prior: Prior) -> Array:
    assert prior.running_w is not None
    return prior.running_w


WRONG: dict[str, Callable[[Prior], Prior]] = {
    "twice too fast": lambda p: bent(p, lambda t, _: t / 2.0),
    "twice too slow": lambda p: bent(p, lambda t, _: t * 2.0),
    "the clock does not matter": lambda p: bent(p, lambda t, s: t[:, -1:] * np.ones_like(s)),
    "only the clock matters": lambda p: bent(p, lambda t, s: t[-1:, -1:] * s * np.ones_like(t)),
    "batches cost nothing": lambda p: bent(p, lambda t, s: t[:1, -1:] * s * np.ones_like(t)),
    "twice the power": lambda p: replace(p, running_w=2.0 * watts(p)),
    "power falls with the clock": lambda p: replace(p, running_w=watts(p)[:, ::-1].copy()),
    "no power": lambda p: replace(p, running_w=None),
}


def drive(
    policy: BoultonPolicy,
    rate: float,
    seconds: int = SECONDS,
    model: str = "resnet50",
    targets: Targets = TARGETS,
) -> list[Record]:
    clock = SimulatedClock()
    gpu = SimulatedGpu(A100, clock=clock, rng_seed=3)
    server = SimulatedServer(gpu, model, clock, batch_limit=128)
    governor = Governor(server, policy, GRID, targets, clock)
    governor.hear = lambda: sounded(governor)
    governor.start()
    records: list[Record] = []
    arrivals = poisson_steps([(float(seconds), rate)], seed=3)
    server.run(arrivals, float(seconds), 1.0, lambda: records.append(governor.step()))
    return records


def sounded(governor: Governor) -> None:
    governor.alarm()


@lru_cache
def cold(rate: float) -> list[Record]:
    return drive(BoultonPolicy(GRID), rate)


def revenue(records: list[Record]) -> float:
    return fmean(record.revenue.total for record in records)


def joules_an_image(records: list[Record]) -> float:
    joules = sum(record.window.device.energy.joules or 0.0 for record in records)
    return joules / sum(record.window.traffic.completed for record in records)


def late_share(records: list[Record]) -> float:
    late = sum(record.window.traffic.late for record in records)
    return late / sum(record.window.traffic.completed for record in records)


@pytest.mark.parametrize("rate", LOADS)
def test_a_right_prediction_moves_the_first_decision_and_saves_at_once(rate: float) -> None:
    warm = drive(BoultonPolicy(GRID, truth()), rate)
    first = warm[0].decision
    assert first.point.sm_clock_mhz != GRID.default.sm_clock_mhz
    assert "prediction" in first.learned
    assert first.predicted_power_w is not None
    assert joules_an_image(warm[1:3]) < joules_an_image(cold(rate)[1:3])
    assert revenue(warm) > 0.999 * revenue(cold(rate))
    assert late_share(warm) <= late_share(cold(rate)) + 0.01


@pytest.mark.parametrize("rate", LOADS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_prediction_makes_nobody_late_and_is_forgotten(
    wrong: Callable[[Prior], Prior], rate: float
) -> None:
    warm = drive(BoultonPolicy(GRID, wrong(truth())), rate)
    assert late_share(warm) <= late_share(cold(rate)) + 0.01
    assert revenue(warm[20:]) >= 0.99 * revenue(cold(rate)[20:])


def test_before_anything_ran_the_default_stays_and_nothing_is_saved() -> None:
    warm, fresh = BoultonPolicy(GRID, truth()), BoultonPolicy(GRID)
    records = drive(warm, 0.5, 3)
    assert {record.decision.point for record in records} == {GRID.default}
    assert json.dumps(warm.export_state()) == json.dumps(fresh.export_state())


def test_a_throttled_window_gives_a_prediction_no_level() -> None:
    warm = BoultonPolicy(GRID, truth())
    window = cold(LOADS[0])[0].window
    device = replace(window.device, event_reasons=EventReason.HW_THERMAL_SLOWDOWN)
    decision = warm.decide(replace(window, device=device), TARGETS)
    assert decision.point == GRID.default
    assert "nothing learned yet" in decision.reason


def test_what_was_learned_before_is_used_and_no_prediction() -> None:
    learned = BoultonPolicy(GRID)
    drive(learned, LOADS[0], 20)
    state = json.loads(json.dumps(learned.export_state()))
    with_prior = BoultonPolicy(GRID, WRONG["the clock does not matter"](truth()))
    without = BoultonPolicy(GRID)
    for policy in (with_prior, without):
        policy.import_state(state)
    points = [
        [record.decision.point for record in drive(policy, LOADS[0], 10)] for policy in (with_prior, without)
    ]
    assert points[0] == points[1]


@pytest.mark.parametrize("too_fast", [0.75, 0.8])
def test_a_clock_that_was_predicted_too_fast_is_not_returned_to_again_and_again(too_fast: float) -> None:
    """Near capacity the alarm ends every window at such a clock, so that none of them is whole evidence."""
    predicted = truth("vgg16")
    share = np.array(predicted.clocks_mhz) / predicted.clocks_mhz[-1]
    predicted = replace(predicted, times_s=predicted.times_s * (too_fast + (1.0 - too_fast) * share**2))
    targets = replace(TARGETS, slo_p99_ms=12.0)
    policies = BoultonPolicy(GRID, predicted), BoultonPolicy(GRID)
    records, without = (drive(policy, 4500.0, model="vgg16", targets=targets) for policy in policies)
    left = [sum(record.window.cut is not None for record in played) for played in (records, without)]
    assert left[0] <= left[1] + 1, "a start that knows nothing has to retreat nearly as often"
    late = sum(record.window.traffic.late for record in records)
    assert late <= 0.005 * sum(record.window.traffic.completed for record in records)
