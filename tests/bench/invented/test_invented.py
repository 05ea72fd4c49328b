"""Scenarios drawn by lot are lawful, repeatable and different."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from bench.invented.__main__ import summary
from bench.invented.card import NETWORK, invent_card
from bench.invented.traffic import KINDS, invent_traffic
from bench.invented.trial import Trial, invent, play


@pytest.mark.parametrize("seed", range(20))
def test_a_card_is_lawful(seed: int) -> None:
    card = invent_card(Random(seed))
    clocks = card.sm_clocks_mhz
    assert list(clocks) == sorted(set(clocks))
    assert card.boost_clock_mhz == clocks[-1]
    physics = card.model(NETWORK)
    for batch in (1, 8, 48):
        assert 0.0 < physics.batch_s(batch, clocks[-1]) < physics.batch_s(batch, clocks[0])
        assert card.idle_power_w < physics.busy_power_w(batch, clocks[-1]) <= 1.05 * card.power_limit_w


def test_every_kind_of_traffic_is_drawn_within_its_time_and_rate() -> None:
    drawn = set()
    for seed in range(60):
        kind, times_s = invent_traffic(Random(seed), 200.0, 30.0)
        drawn.add(kind)
        assert (np.diff(times_s) >= 0.0).all()
        assert times_s.size == 0 or 0.0 <= times_s[0] <= times_s[-1] <= 30.0
        assert times_s.size < 1.5 * 200.0 * 30.0
    assert drawn == set(KINDS)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    one, same, other = (invent(seed, 10.0)[0] for seed in (3, 3, 4))
    assert (one.arrivals_s == same.arrivals_s).all()
    assert one.profile == same.profile != other.profile
    assert one.targets == same.targets != other.targets


def test_a_trial_is_played() -> None:
    trial = play(1, 5.0)
    assert trial.images > 0
    assert 0.0 <= trial.late <= 1.0
    assert trial.energy_ratio > 0.0


def test_the_summary_counts_where_the_slo_can_be_kept() -> None:
    def trial(late: float, default_late: float, revenue_ratio: float) -> Trial:
        return Trial(0, "steady", 0.5, 10.0, 1000, late, default_late, revenue_ratio, 0.9)

    trials = [trial(0.0, 0.0, 1.2), trial(0.02, 0.0, 0.9), trial(0.4, 0.3, 0.1)]
    found = summary(trials)
    assert found["scenarios"] == 3
    assert found["the SLO can be kept in"] == 2
    assert found["of these ours keeps it in"] == 1
    assert found["earns over 0.5 % less than the default setting in"] == 1
    assert found["the same, lowest"] == 0.9


def test_a_queue_that_keeps_itself_is_broken_up() -> None:
    """In large batches this card meets its power limit and is too slow for what comes: a queue would last."""
    assert play(5176, 70.0).late < 0.15
