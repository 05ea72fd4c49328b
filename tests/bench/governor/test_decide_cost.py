from __future__ import annotations

import pytest

from bench.governor.decide_cost import (
    CLOCKS,
    MAX_BATCH,
    Cost,
    OtherWork,
    Recording,
    costs,
    costs_in_simulation,
    record,
    shortest,
)

DECISIONS = 8


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record(CLOCKS, DECISIONS)


def test_it_decides_on_the_grid_of_the_target(recording: Recording) -> None:
    assert str(recording) == "128 batches x 110 clocks"
    assert recording.grid.batch_limits[-1] == MAX_BATCH


def test_all_clocks_of_the_card_are_more() -> None:
    assert len(record(None, 1).grid.sm_clocks_mhz) > CLOCKS


def test_every_window_is_decided_on_again_and_timed(recording: Recording) -> None:
    found = costs(recording)
    assert len(found) == len(recording.windows) >= DECISIONS
    assert min(min(cost.processor_ms, cost.wall_ms) for cost in found) > 0.0
    assert min(cost.faults for cost in found) >= 0


def test_decisions_within_a_simulation_are_timed() -> None:
    assert len(costs_in_simulation(DECISIONS)) >= DECISIONS


def test_other_work_changes_no_window(recording: Recording) -> None:
    work = OtherWork()
    for window in recording.windows:
        made = work(window)
        assert made == window
        assert made is not window


def test_the_windows_have_batches_to_learn_from(recording: Recording) -> None:
    assert all(window.traffic.batches for window in recording.windows)


def test_of_each_decision_the_round_with_the_least_processor_time_counts() -> None:
    quick, slow = Cost(1.0, 9.0, 0), Cost(2.0, 2.0, 0)
    assert shortest([[quick, slow], [slow, quick]]) == [quick, quick]
