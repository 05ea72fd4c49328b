"""The rivals that tune offline and stay: worked examples, and brute force over any sweep."""

from __future__ import annotations

import pytest
from fluid_plant import GRID, SWEEP, window
from hypothesis import given
from hypothesis import strategies as st

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.rivals.default import default
from optimizer.policies.rivals.joule_point import joule_point
from optimizer.policies.rivals.static_best import static_best
from optimizer.policies.rivals.sweep import OfflineSweep, try_all, try_clocks
from optimizer.revenue import Targets

SMALL = OperatingGrid((1, 2, 4), (500, 1000))
SECONDS = {
    (1, 500): 0.010,
    (1, 1000): 0.006,
    (2, 500): 0.014,
    (2, 1000): 0.009,
    (4, 500): 0.024,
    (4, 1000): 0.016,
}
WATTS = {(1, 500): 50.0, (1, 1000): 100.0, (2, 500): 55.0, (2, 1000): 110.0, (4, 500): 60.0, (4, 1000): 120.0}


def sweep(peak_images_per_s: float = 0.0, power_limit_w: float = 300.0) -> OfflineSweep:
    return OfflineSweep(
        lambda batch, mhz: SECONDS[batch, int(mhz)],
        lambda batch, mhz: WATTS[batch, int(mhz)],
        20.0,
        power_limit_w,
        peak_images_per_s,
    )


def test_the_default_is_the_largest_batch_at_boost() -> None:
    assert default(SMALL).point == OperatingPoint(4, 1000)


@pytest.mark.parametrize(
    ("slo_ms", "limit"),
    [(32.0, 4), (31.0, 2), (18.0, 2), (17.0, 1), (12.0, 1), (11.0, 1)],
    ids=[
        "2*16 ms fit",
        "just not",
        "2*9 ms fit",
        "just not either",
        "2*6 ms fit",
        "nothing fits: the quickest",
    ],
)
def test_static_best_takes_the_most_throughput_within_the_slo_at_boost(slo_ms: float, limit: int) -> None:
    assert static_best(SMALL, Targets(slo_p99_ms=slo_ms), sweep()).point == OperatingPoint(limit, 1000)


@pytest.mark.parametrize(
    ("slo_ms", "peak", "point"),
    [
        # J an image: 0.5 and 0.6 at batch 1, 0.385 and 0.495 at batch 2, 0.36 and 0.48 at batch 4.
        (48.0, 0.0, OperatingPoint(4, 500)),
        # Batch 4 needs the high clock (0.48 J), batch 2 keeps the low one (0.385 J).
        (40.0, 0.0, OperatingPoint(2, 500)),
        # 143 images/s of batch 2 at 500 MHz carry 128; 250 of batch 4 at 1000 MHz carry 225, 0.48 J.
        (40.0, 130.0, OperatingPoint(4, 1000)),
        # Nothing carries 226: the setting of static-best.
        (40.0, 226.0, OperatingPoint(4, 1000)),
        (18.0, 0.0, OperatingPoint(2, 1000)),
        (5.0, 0.0, OperatingPoint(1, 1000)),
    ],
)
def test_joule_point_takes_the_least_energy_but_never_less_than_the_slo_needs(
    slo_ms: float, peak: float, point: OperatingPoint
) -> None:
    assert joule_point(SMALL, Targets(slo_p99_ms=slo_ms), sweep(peak)).point == point


def test_beyond_the_power_limit_of_the_board_a_higher_clock_changes_nothing() -> None:
    low, high = try_clocks(SMALL, sweep(power_limit_w=110.0), 4)
    assert (high.batch_s, high.power_w) == (low.batch_s, low.power_w) == (0.024, 60.0)
    assert len(try_all(SMALL, sweep())) == len(SMALL)


@given(st.floats(1.0, 200.0), st.floats(0.0, 5000.0))
def test_nothing_that_keeps_the_slo_spends_less_than_joule_point(slo_ms: float, peak: float) -> None:
    targets = Targets(slo_p99_ms=slo_ms)
    offline = OfflineSweep(SWEEP.batch_s, SWEEP.busy_power_w, 20.0, 300.0, peak)
    grid = OperatingGrid((1, 2, 4, 8, 16, 32, 64), GRID.sm_clocks_mhz[::8])
    trials = try_all(grid, offline)
    kept = [trial for trial in trials if trial.answers_in_time(targets) and trial.carries(peak)]
    chosen = next(t for t in trials if t.point == joule_point(grid, targets, offline).point)
    if kept:
        assert chosen.joules_per_image == min(trial.joules_per_image for trial in kept)
    else:
        assert chosen.point == static_best(grid, targets, offline).point


def test_a_kept_setting_drops_its_clock_while_none_can_be_set() -> None:
    policy = default(SMALL)
    assert policy.decide(window(OperatingPoint(1, None)), Targets()).point == OperatingPoint(4, None)
    assert policy.decide(window(OperatingPoint(1, 500)), Targets()).point == OperatingPoint(4, 1000)
