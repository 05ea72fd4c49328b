from __future__ import annotations

import pytest

from bench.governor.decide_cost import CLOCKS, MAX_BATCH, Recording, decide_ms, record

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
    took_ms = decide_ms(recording)
    assert len(took_ms) == len(recording.windows) >= DECISIONS
    assert min(took_ms) > 0.0


def test_the_windows_have_batches_to_learn_from(recording: Recording) -> None:
    assert all(window.traffic.batches for window in recording.windows)
