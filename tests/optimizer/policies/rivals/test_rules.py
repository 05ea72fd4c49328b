"""The rivals that act on each window: their published rules, step by step, on windows worked out by hand."""

from __future__ import annotations

import pytest
from fluid_plant import window

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Policy
from optimizer.policies.rivals.batchdvfs import BatchDvfsPolicy
from optimizer.policies.rivals.clipper import ClipperPolicy
from optimizer.policies.rivals.morak import MorakPolicy
from optimizer.policies.rivals.mu_serve import MuServePolicy
from optimizer.policies.rivals.reading import shift, toward
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.policies.rivals.throttllem import ThrottllemPolicy
from optimizer.revenue import Targets
from optimizer.telemetry import BatchTimes, Window

CLOCKS = tuple(range(100, 1601, 10))
GRID = OperatingGrid(tuple(range(1, 129)), CLOCKS)
SLO = Targets(slo_p99_ms=100.0)
CAP = Targets(slo_p99_ms=100.0, power_cap_w=200.0)


def step(policy: Policy, seen: Window, targets: Targets) -> OperatingPoint:
    return policy.decide(seen, targets).point


def test_moves_on_an_axis_end_at_its_ends_and_never_overshoot() -> None:
    axis = (1, 2, 4, 8)
    assert [shift(axis, 2, by) for by in (-5, -1, 0, 1, 5)] == [1, 1, 2, 4, 8]
    assert toward(axis, 2, 7.0) == 4, "the farthest on the way"
    assert toward(axis, 4, 5.0) == 8, "the next if none is on the way"
    assert toward(axis, 8, 3.0) == 4
    assert toward(axis, 8, 7.9) == 4
    assert toward(axis, 8, 99.0) == 8
    assert toward(axis, 1, 0.5) == 1


# Clipper


@pytest.mark.parametrize(
    ("limit", "batch_ms", "after"),
    [
        (20, 49.0, 28),
        (20, 51.0, 18),
        (25, 51.0, 23),  # 22.5, never more than 10 %
        (5, 51.0, 4),
        (1, 51.0, 1),
        (125, 49.0, 128),
    ],
)
def test_clipper_steps_up_until_a_batch_misses_then_backs_off_by_a_tenth(
    limit: int, batch_ms: float, after: int
) -> None:
    batches = {1: BatchTimes(10, 0.01), limit: BatchTimes(10, batch_ms / 100.0)}
    seen = window(OperatingPoint(limit, 1000), batches=batches)
    assert step(ClipperPolicy(GRID), seen, SLO) == OperatingPoint(after, 1600), "the clock stays at boost"


# BatchDVFS: the ten clocks of 1531 MHz scaled to 1600, on steps of 10 MHz

TEN = (570, 660, 770, 870, 990, 1110, 1240, 1360, 1490, 1600)


class Driven:
    """Shows a policy windows at the setting it last asked for."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.point = step(policy, window(GRID.default, watts=100.0), CAP)

    def see(self, *watts: float) -> OperatingPoint:
        for power in watts:
            self.point = step(self.policy, window(self.point, watts=power), CAP)
        return self.point


def test_batchdvfs_starts_at_batch_1_and_the_clock_of_index_5() -> None:
    assert Driven(BatchDvfsPolicy(GRID, None)).point == OperatingPoint(1, TEN[5])


def test_batchdvfs_judges_the_highest_power_of_3_s() -> None:
    driven = Driven(BatchDvfsPolicy(GRID, None))
    assert driven.see(100.0, 100.0) == OperatingPoint(1, TEN[5]), "not yet"
    assert driven.see(100.0) == OperatingPoint(65, TEN[5]), "half way up"
    assert driven.see(210.0, 100.0, 100.0) == OperatingPoint(33, TEN[5]), (
        "one reading over the cap: half way back"
    )


def test_batchdvfs_holds_inside_its_dead_band() -> None:
    driven = Driven(BatchDvfsPolicy(GRID, None))
    for watts in (160.0, 180.0, 200.0):
        assert driven.see(watts, watts, watts) == OperatingPoint(1, TEN[5])


def test_batchdvfs_searches_the_batch_by_halving_and_only_then_moves_the_clock() -> None:
    driven = Driven(BatchDvfsPolicy(GRID, None))
    up = [driven.see(100.0, 100.0, 100.0) for _ in range(10)]
    assert [point.batch_limit for point in up] == [65, 97, 113, 121, 125, 127, 128, 128, 128, 128]
    assert [point.sm_clock_mhz for point in up] == [TEN[5]] * 7 + [TEN[6], TEN[7], TEN[8]]
    down = [driven.see(250.0, 250.0, 250.0) for _ in range(9)]
    assert [point.batch_limit for point in down] == [127, 64, 32, 16, 8, 4, 2, 1, 1]
    assert [point.sm_clock_mhz for point in down] == [TEN[8]] * 8 + [TEN[7]]


def test_batchdvfs_without_a_cap_takes_the_limit_of_the_board() -> None:
    policy = BatchDvfsPolicy(GRID, 300.0)
    point = step(policy, window(GRID.default), SLO)
    for _ in range(3):
        assert point == OperatingPoint(1, TEN[5])
        point = step(policy, window(point, watts=239.0), SLO)
    assert point.batch_limit == 65, "239 W are below 0.8 * 300 W"


# Morak


@pytest.mark.parametrize(
    ("watts", "p99_ms", "batch_limit", "clock_mhz"),
    [
        (150.0, 90.0, 33, 1000),  # under the cap and quick enough: batch + 1
        (150.0, 91.0, 32, 1100),  # 25 % under and slow: clock + 10 positions
        (170.0, 91.0, 32, 1050),  # 15 %: 5 positions
        (185.0, 91.0, 32, 1020),  # 7.5 %: 2 positions
        (191.0, 91.0, 32, 1000),  # above 0.95 of the cap: hold
        (204.0, 91.0, 32, 1000),  # up to 1.02: hold
        (205.0, 90.0, 32, 990),  # 2.5 % over and quick: clock - 1
        (215.0, 90.0, 32, 980),
        (230.0, 90.0, 32, 950),
        (250.0, 90.0, 32, 900),
        (205.0, 91.0, 31, 1000),  # over and slow: batch - 1
        (250.0, 91.0, 22, 1000),
    ],
)
def test_morak_moves_by_power_and_latency(
    watts: float, p99_ms: float, batch_limit: int, clock_mhz: int
) -> None:
    seen = window(OperatingPoint(32, 1000), watts=watts, p99_ms=p99_ms)
    assert step(MorakPolicy(GRID, None), seen, CAP) == OperatingPoint(batch_limit, clock_mhz)


def test_morak_without_a_cap_takes_four_fifths_of_the_limit_of_the_board() -> None:
    here = OperatingPoint(32, 1000)
    assert step(MorakPolicy(GRID, 250.0), window(here, watts=195.0), SLO) == here
    assert step(MorakPolicy(GRID, 250.0), window(here, watts=189.0), SLO) == OperatingPoint(33, 1000)


# mu-Serve


@pytest.mark.parametrize(
    ("p99_ms", "clock_mhz"),
    [(79.0, 770), (80.0, 800), (90.0, 800), (91.0, 1600), (500.0, 1600)],
    ids=[
        "much slack: 2 % of 1600 less",
        "in between",
        "in between still",
        "little: doubled",
        "none: doubled",
    ],
)
def test_mu_serve_doubles_the_clock_and_lowers_it_by_steps(p99_ms: float, clock_mhz: int) -> None:
    seen = window(OperatingPoint(32, 800), p99_ms=p99_ms)
    assert step(MuServePolicy(GRID), seen, SLO) == OperatingPoint(128, clock_mhz)


# throttLL'eM: a batch takes (4 + b) ms at 1000 MHz, in proportion to the clock's period

PROPORTIONAL = OfflineSweep(lambda b, mhz: (4.0 + b) / mhz, lambda b, mhz: 100.0, 20.0, 300.0)


def throttllem(seen: Window) -> OperatingPoint:
    return step(ThrottllemPolicy(GRID, SLO, PROPORTIONAL), seen, SLO)


def test_throttllem_takes_the_lowest_clock_that_keeps_the_slo_on_the_projected_work() -> None:
    # 400 images/s. At 720 MHz a batch of 23 takes 37.5 ms, in which 15 arrive, 22.7 with two deviations: two
    # of them take 75 ms. At 600 MHz that takes a batch of 41, and two of them 150 ms. So for each clock:
    def smallest(mhz: int) -> int:
        arriving = [0.4 * (4 + b) * 1000 / mhz for b in range(1, 129)]
        return next(b for b, a in enumerate(arriving, start=1) if b >= a + 2.0 * a**0.5)

    expected = next(mhz for mhz in range(500, 1601, 10) if 2.0 * (4 + smallest(mhz)) * 1000 / mhz <= 100.0)
    assert throttllem(window(GRID.default, images=400)) == OperatingPoint(128, expected)
    assert (smallest(720), smallest(600)) == (23, 41)
    assert 600 < expected < 720


def test_throttllem_runs_faster_for_what_already_waits() -> None:
    calm = throttllem(window(GRID.default, images=400))
    waiting = throttllem(window(GRID.default, images=400, queued=60))
    assert (waiting.sm_clock_mhz or 0) > (calm.sm_clock_mhz or 0)


@pytest.mark.parametrize("trouble", [{"late": 1}, {"queued": 10_000}, {"images": 5000}])
def test_throttllem_takes_the_highest_clock_once_a_request_is_lost_or_nothing_helps(
    trouble: dict[str, int],
) -> None:
    seen = window(OperatingPoint(128, 500), **({"images": 400} | trouble))
    assert throttllem(seen) == OperatingPoint(128, 1600)
