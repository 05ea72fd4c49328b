"""What a prediction stands in for, and how it gives way to what is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optimizer.models.machine import Machine
from optimizer.models.prior import Prior, Shape
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.telemetry import BatchTimes, DeviceReading, Energy, EnergySource, Traffic, Window

CLOCKS = (500, 750, 1000, 1250, 1500)
GRID = OperatingGrid(tuple(range(1, 65)), CLOCKS)
SIZES = (1, 4, 16, 64)


def times_s(scale: float = 1.0, power: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    batches, clocks = np.array(SIZES, float)[:, None], np.array(CLOCKS, float)[None, :]
    answer: np.ndarray[Any, np.dtype[np.float64]] = (
        scale * (1e-3 + 4e-4 * batches) * (1500.0 / clocks) ** power
    )
    return answer


def watts(scale: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    answer: np.ndarray[Any, np.dtype[np.float64]] = (
        scale * (60.0 + 200.0 * (np.array(CLOCKS, float)[None, :] / 1500.0) ** 3) * np.ones((len(SIZES), 1))
    )
    return answer


PRIOR = Prior(SIZES, tuple(map(float, CLOCKS)), times_s(), watts(), 0.1)


def window(batch: int, clock: int, seconds: float, joules: float | None, count: int = 20) -> Window:
    source = EnergySource.NOT_MEASURED if joules is None else EnergySource.SIMULATED
    energy = Energy(joules, source)
    traffic = Traffic(completed=count * batch, batches={batch: BatchTimes(count, count * seconds)})
    return Window(0.0, 1.0, OperatingPoint(64, clock), traffic, DeviceReading(energy))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sizes": (4, 1, 16, 64)}, "sizes"),
        ({"clocks_mhz": (0.0, 1.0, 2.0, 3.0, 4.0)}, "clocks_mhz"),
        ({"times_s": times_s()[:2]}, "times_s must have the shape"),
        ({"times_s": -times_s()}, "times_s must be positive"),
        ({"running_w": watts() * np.nan}, "running_w must be positive"),
        ({"spread": -1.0}, "spread"),
        ({"sizes": (), "times_s": np.ones((0, 5)), "running_w": None}, "not empty"),
    ],
)
def test_what_is_no_prediction_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(PRIOR, **changes)


def test_a_prior_alone_makes_nothing_ready() -> None:
    machine = Machine(GRID, PRIOR)
    assert not machine.ready
    assert not machine.knows_power


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_first_window_gives_a_prior_its_level(scale: float) -> None:
    machine = Machine(GRID, replace(PRIOR, times_s=times_s(scale)))
    machine.gauge(window(16, 1500, times_s()[2, -1], None), 1500)
    tables = machine.tables()
    rows = [int(np.flatnonzero(machine.sizes == size)[0]) for size in SIZES]
    assert tables.times_s[rows] == pytest.approx(times_s(), rel=1e-6)
    assert (tables.known == 0.0).all()
    assert (tables.cautious_times_s >= tables.times_s).all()
    assert np.isfinite(tables.cautious_times_s).all()


def test_power_is_not_known_before_some_was_measured() -> None:
    machine = Machine(GRID, PRIOR)
    machine.gauge(window(16, 1500, times_s()[2, -1], None), 1500)
    assert machine.ready
    assert not machine.knows_power
    assert machine.tables().running_w is None


def test_the_level_of_power_is_that_of_the_first_window() -> None:
    busy, idle_w = 20 * times_s()[2, -1], 40.0
    joules = idle_w + busy * (260.0 - idle_w)
    machine = Machine(GRID, PRIOR)
    machine.gauge(window(16, 1500, times_s()[2, -1], joules), 1500)
    running_w = machine.tables().running_w
    assert machine.idle_w == pytest.approx(idle_w)
    assert running_w is not None
    assert running_w[:, -1] == pytest.approx(260.0 - idle_w)
    assert running_w[:, 0] == pytest.approx(watts()[0, 0] - idle_w)


def test_power_twice_too_high_is_brought_to_what_was_measured() -> None:
    busy, joules = 20 * times_s()[2, -1], 40.0 + 20 * times_s()[2, -1] * 220.0
    machine = Machine(GRID, replace(PRIOR, running_w=watts(2.0)))
    machine.gauge(window(16, 1500, times_s()[2, -1], joules), 1500)
    running_w = machine.tables().running_w
    assert running_w is not None
    assert machine.idle_w + busy * running_w[0, -1] == pytest.approx(joules)


def test_what_is_measured_wins_within_a_few_windows() -> None:
    """A prior that says the clock does not matter, on a machine where nothing else does."""
    machine = Machine(GRID, replace(PRIOR, times_s=times_s(power=0.0)))
    machine.gauge(window(16, 1500, times_s()[2, -1], None), 1500)
    for _ in range(2):
        for column in (1, 3):
            machine.learn_times(
                {16: BatchTimes(20, 20 * times_s()[2, column])}, CLOCKS[column], CLOCKS[column]
            )
    row = int(np.flatnonzero(machine.sizes == 16)[0])
    assert machine.tables().times_s[row] == pytest.approx(times_s()[2], rel=0.15)


def test_a_prior_is_let_go_in_the_end_even_if_it_was_right() -> None:
    warm, cold = Machine(GRID, PRIOR), Machine(GRID)
    warm.gauge(window(16, 1500, times_s()[2, -1], 100.0), 1500)
    for _ in range(60):
        for machine in (warm, cold):
            measured = window(16, 1000, times_s()[2, 2], 100.0)
            machine.learn_times(measured.traffic.batches, 1000, 1000)
            machine.learn_power(measured, 1000)
    np.testing.assert_allclose(warm.tables().times_s, cold.tables().times_s)
    powers = [machine.tables().running_w for machine in (warm, cold)]
    assert powers[0] is not None
    assert powers[1] is not None
    np.testing.assert_allclose(powers[0], powers[1])


def learned(machine: Machine) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.dumps(machine.export_state()))
    return state


def test_nothing_of_a_prior_is_saved_as_learned() -> None:
    warm, cold = Machine(GRID, PRIOR), Machine(GRID)
    warm.gauge(window(16, 1500, times_s()[2, -1], 100.0), 1500)
    assert learned(warm) | {"anchors": []} == learned(cold)
    for machine in (warm, cold):
        measured = window(8, 1000, 0.007, 90.0)
        machine.learn_times(measured.traffic.batches, 1000, 1000)
        machine.learn_power(measured, 1000)
    assert {**learned(warm), "anchors": []} == {**learned(cold), "anchors": []}


def test_what_was_learned_before_wins_over_a_prior() -> None:
    taught = Machine(GRID)
    taught.learn_times({8: BatchTimes(20, 0.2)}, 1000, 1000)
    warm, cold = Machine(GRID, replace(PRIOR, times_s=times_s(power=0.0))), Machine(GRID)
    for machine in (warm, cold):
        machine.import_state(learned(taught))
    np.testing.assert_array_equal(warm.tables().times_s, cold.tables().times_s)


def test_a_machine_that_forgets_starts_from_the_prior_again() -> None:
    machine = Machine(GRID, PRIOR)
    machine.gauge(window(16, 1500, times_s()[2, -1], 100.0), 1500)
    machine.forget()
    assert not machine.ready
    machine.gauge(window(16, 1500, times_s()[2, -1], 100.0), 1500)
    assert machine.ready


def test_without_clocks_a_prior_has_one_column() -> None:
    machine = Machine(OperatingGrid((1, 2, 4, 8)), Prior((1, 8), (), np.array([[1e-3], [4e-3]]), None, 0.1))
    machine.gauge(
        Window(
            0.0,
            1.0,
            OperatingPoint(8),
            Traffic(completed=20, batches={1: BatchTimes(20, 0.04)}),
        ),
        None,
    )
    assert machine.tables().times_s[:, 0] == pytest.approx([0.002 * size ** (2 / 3) for size in range(1, 9)])


def test_a_shape_that_was_far_off_is_no_longer_believed() -> None:
    axis = np.log(np.array([1.0, 2.0]))
    right, wrong = (Shape(np.zeros((2, 2)), axis, axis, 0.1) for _ in range(2))
    for shape, measured in ((right, 1.05), (wrong, 2.0)):
        shape.gauge(1.0, 1.0)
        shape.observe(measured, 1.0)
    assert right.ready
    assert right.trust > 0.7
    assert not wrong.ready


def test_a_prediction_narrows_what_is_to_be_feared_where_nothing_ran() -> None:
    """Measured at the highest clock only: at the lowest, physics allows for three times the time."""
    ways = []
    for spread in (0.0, 0.2, 5.0, 50.0):
        machine = Machine(GRID, replace(PRIOR, times_s=times_s(power=0.1), spread=spread))
        machine.gauge(window(16, 1500, times_s()[2, -1], None), 1500)
        tables = machine.tables()
        ways.append(float((tables.cautious_times_s / tables.times_s)[0, 0]) - 1.0)
    assert 0.0 < ways[0] < 0.05, "never of no doubt at all"
    assert ways[0] < ways[1] == pytest.approx(machine.doubt_share * (np.exp(2.0 * 0.2) - 1.0), rel=1e-6)
    assert ways[1] < ways[2] == ways[3], "where it doubts more than physics does, physics decides"


def test_a_prediction_that_was_off_narrows_the_less() -> None:
    axis, values, worst = np.log(np.array([1.0, 2.0])), np.ones(2), np.full(2, 3.0)
    fine, off = (Shape(np.zeros((2, 2)), axis, axis, 0.02) for _ in range(2))
    for shape, measured in ((fine, 1.0), (off, 1.15)):
        shape.gauge(1.0, 1.0)
        shape.observe(measured, 1.0)
    assert (fine.narrowed(values, worst) < off.narrowed(values, worst)).all()
    assert (off.narrowed(values, worst) < worst).all()
    off.doubt(0.0)
    assert (off.narrowed(values, worst) == worst).all()


def test_a_prediction_of_another_machine_narrows_the_less_the_further_away() -> None:
    """Twice as slow as predicted, with hardly any doubt stated: that was another machine."""
    ways = []
    for scale in (1.0, 0.5):
        machine = Machine(GRID, replace(PRIOR, times_s=times_s(scale, power=0.1), spread=0.0))
        machine.gauge(window(16, 1500, times_s()[2, -1], None), 1500)
        tables = machine.tables()
        ways.append(tables.cautious_times_s / tables.times_s - 1.0)
    row = int(np.flatnonzero(machine.sizes == 16)[0])
    right, wrong = ways
    assert (right[row] <= wrong[row] + 1e-12).all()
    assert wrong[row, 0] > 3.0 * right[row, 0], "at a third of the clock"
    assert wrong[row, 0] > wrong[row, -2] > 0.0


@pytest.mark.parametrize("busy", [0.1, 0.5])
def test_idle_power_is_that_of_the_prediction_until_it_is_let_go(busy: float) -> None:
    """One window tells idle power from that of running only with what was predicted of the latter."""
    idle_w, running_w = 25.0, watts()[2, -1]
    evidence = window(16, 1500, busy / 20, idle_w + busy * (running_w - idle_w))
    warm, cold = Machine(GRID, replace(PRIOR, times_s=times_s(busy / 20 / times_s()[2, -1]))), Machine(GRID)
    for machine in (warm, cold):
        machine.learn_times(evidence.traffic.batches, 1500, 1500)
        machine.learn_power(evidence, 1500)
    assert warm.idle_w == pytest.approx(idle_w)
    assert cold.idle_w != pytest.approx(idle_w, rel=0.1)
    warm.doubt(0.0)
    assert warm.idle_w == pytest.approx(cold.idle_w)
