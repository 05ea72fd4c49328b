from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.models.at_once import late_share_at_once
from optimizer.models.batch_regime import Regime, deviations, largest_in_time, overflow_share, regimes
from optimizer.models.batch_sizes import BatchSizes
from optimizer.models.load import Load

SIZES = np.arange(1.0, 65.0)
ROWS = BatchSizes(SIZES)
SLOWER = (1.0, 2.0)
TIMES_S = (0.002 + 0.0002 * SIZES)[:, None] * np.array(SLOWER)
LAST_ROWS = np.array([63, 63])


def regime(rate: float, *, limit_s: float = 0.05, clumping: float = 1.0) -> Regime:
    return regimes(ROWS, TIMES_S, LAST_ROWS, Load(rate, clumping), limit_s)


def at_once(found: Regime) -> NDArray[np.intp]:
    """The row of the greedy regime, one a clock."""
    rows: NDArray[np.intp] = found.possible.argmax(axis=0)
    return rows


def longest_s(found: Regime, row: int, column: int) -> float:
    return float(found.longest_s(np.array([row]), np.array([column]))[0])


def drawn_mean_batch(rate: float, slower: float) -> float:
    """Let a server take what has come during the batch before, or wait for one image, many times."""
    random, size, total = np.random.default_rng(3), 1, 0
    for _ in range(20_000):
        size = max(1, int(random.poisson(rate * slower * (0.002 + 0.0002 * size))))
        total += size
    return total / 20_000


def test_the_latency_that_all_but_a_few_keep_is_where_a_hundredth_is_late() -> None:
    """The search ends within a 256th of where it began, and asks of several clocks at a time."""
    once = regime(1500.0).at_once
    found_s = once.longest_s(np.array([1, 0]))
    assert found_s.tolist() == [*once.longest_s(np.array([1])), *once.longest_s(np.array([0]))]
    below, beyond = (once.late_share(share * found_s[::-1]) for share in (0.98, 1.02))
    assert (below > 0.01).all()
    assert (beyond < 0.01).all()


@pytest.mark.parametrize("rate", [100.0, 1000.0, 1800.0])
def test_without_delay_the_mean_batch_is_that_of_a_server_that_never_waits(rate: float) -> None:
    found = regime(rate)
    for column, slower in enumerate(SLOWER):
        drawn = drawn_mean_batch(rate, slower)
        assert 0.95 * drawn < found.at_once.mean[column] < 1.05 * drawn + 1.0, "the next whole batch"


def test_the_smallest_possible_mean_solves_its_equation_and_smaller_ones_do_not() -> None:
    rate = 1500.0
    found = regime(rate)
    for column, row in enumerate(at_once(found)):
        assert row > 0
        arriving = rate * TIMES_S[:, column]
        sustained = arriving + np.exp(-arriving)
        assert sustained[row] <= SIZES[row]
        assert (sustained[:row] > SIZES[:row]).all()
        assert not found.possible[:row, column].any()
        assert found.possible[row:, column].all()


def test_a_larger_mean_belongs_to_the_delay_in_which_the_others_come() -> None:
    found = regime(1500.0)
    for column, row in enumerate(at_once(found)):
        assert (found.delay_s[: row + 1, column] == 0.0).all()
        assert found.delay_s[row + 1 :, column] == pytest.approx((SIZES[row + 1 :] - 1.0) / 1500.0)


def test_larger_batches_keep_the_engine_less_busy() -> None:
    found = regime(1500.0)
    assert (np.diff(found.busy[at_once(found)[0] :, 0]) < 0.0).all()
    assert found.busy[31, 0] == pytest.approx(1500.0 * TIMES_S[31, 0] / 32.0)


def test_a_load_beyond_capacity_leaves_nothing_possible() -> None:
    found = regime(3.0 * 64.0 / TIMES_S[-1, 0])
    assert not found.possible.any()
    assert (found.busy == 1.0).all()


def test_no_mean_above_the_cap_is_possible() -> None:
    caps = np.array([20, 30])
    found = regimes(ROWS, TIMES_S, caps, Load(1000.0, 1.0), 0.05)
    assert [int(np.flatnonzero(column)[-1]) for column in found.possible.T] == [20, 30]


def test_more_time_never_makes_more_late() -> None:
    shares = np.array([regime(1500.0, limit_s=limit).late_share for limit in np.geomspace(1e-3, 0.2, 40)])
    assert (np.diff(shares, axis=0) <= 1e-12).all()
    assert shares[0].max() == 1.0
    assert shares[-1].max() == 0.0


def test_more_load_and_more_uneven_load_make_more_late() -> None:
    def late(rate: float, clumping: float) -> float:
        found = regime(rate, limit_s=0.012, clumping=clumping)
        return float(found.late_share[at_once(found)[0], 0])

    by_load = [late(rate, 1.0) for rate in (100.0, 500.0, 2000.0, 3500.0)]
    assert by_load == sorted(by_load)
    assert by_load[0] == 0.0 < by_load[-1]
    by_clumping = [late(2500.0, clumping) for clumping in (1.0, 3.0, 9.0)]
    assert by_clumping == sorted(by_clumping)
    assert by_clumping[0] < by_clumping[-1]


def drawn_latencies_s(rate: float, images: int) -> NDArray[np.float64]:
    """Let requests of so many images come to a server that takes all that has come; drop the warm-up."""
    random = np.random.default_rng(5)
    arrivals = np.repeat(np.cumsum(random.exponential(images / rate, 40_000 // images)), images)
    latencies, free_s, first = [], 0.0, 0
    while first < arrivals.size:
        start_s = max(free_s, arrivals[first])
        last = int(np.searchsorted(arrivals, start_s, side="right"))
        free_s = start_s + 0.002 + 0.0002 * (last - first)
        latencies.append(free_s - arrivals[first:last])
        first = last
    return np.concatenate(latencies)[2000:]


@pytest.mark.parametrize(
    ("rate", "images", "off"),
    [(1000.0, 1, 0.06), (2500.0, 1, 0.06), (3500.0, 1, 0.06), (1500.0, 4, 0.13), (2500.0, 4, 0.13)],
)
def test_the_99th_percentile_and_what_is_late_are_those_of_a_drawn_queue(
    rate: float, images: int, off: float
) -> None:
    drawn_s = drawn_latencies_s(rate, images)
    found = regime(rate, clumping=float(images))
    row = at_once(found)[0]
    p99_s = float(np.quantile(drawn_s, 0.99))
    assert longest_s(found, int(row), 0) == pytest.approx(p99_s, rel=off)
    late = regime(rate, limit_s=p99_s, clumping=float(images)).late_share[row, 0]
    assert 0.001 < late < 0.04


def drawn_delayed_latencies_s(rate: float, delay_s: float) -> NDArray[np.float64]:
    """Let images come one by one to a server that waits so long for a batch to grow; drop the warm-up."""
    random = np.random.default_rng(5)
    arrivals = np.cumsum(random.exponential(1.0 / rate, 60_000))
    latencies, free_s, first = [], 0.0, 0
    while first < arrivals.size:
        start_s = max(free_s, arrivals[first] + delay_s)
        last = min(int(np.searchsorted(arrivals, start_s, side="right")), first + 64)
        free_s = start_s + 0.002 + 0.0002 * (last - first)
        latencies.append(free_s - arrivals[first:last])
        first = last
    return np.concatenate(latencies)[2000:]


@pytest.mark.parametrize("more", [1, 3, 8])
@pytest.mark.parametrize("rate", [1000.0, 2500.0, 3500.0, 4000.0])
def test_batches_that_outlast_the_delay_make_the_next_one_larger(rate: float, more: int) -> None:
    """Also where a delay hardly matters any more, because the server is busy nearly all the time."""
    row = at_once(regime(rate))[0] + more
    drawn_s = drawn_delayed_latencies_s(rate, float(regime(rate).delay_s[row, 0]))
    p99_s = float(np.quantile(drawn_s, 0.99))
    found = regime(rate, limit_s=p99_s)
    assert found.gathered_longest_s[row, 0] == pytest.approx(p99_s, rel=0.1)
    assert 0.0005 < found.late_share[row, 0] < 0.05


@pytest.mark.parametrize("rate", [1500.0, 3000.0])
def test_what_is_late_of_another_load_is_that_of_its_own_regime(rate: float) -> None:
    found = regime(rate, limit_s=0.012)
    late = late_share_at_once(ROWS, TIMES_S, LAST_ROWS, Load(rate, 1.0), 0.012)
    for column, row in enumerate(at_once(found)):
        assert late[column] == pytest.approx(found.late_share[row, column])
    beyond = late_share_at_once(ROWS, TIMES_S, LAST_ROWS, Load(1e5, 1.0), 0.012)
    assert (beyond == 1.0).all()


@pytest.mark.parametrize("rate", [500.0, 2000.0])
def test_below_the_lowest_clock_asked_for_only_what_gathers_is_not_looked_at(rate: float) -> None:
    load = Load(rate, 1.0)
    whole, part = (regimes(ROWS, TIMES_S, LAST_ROWS, load, 0.012, lowest) for lowest in (0, 1))
    np.testing.assert_array_equal(part.late_share[:, 1], whole.late_share[:, 1])
    rows = whole.delay_s[:, 1] > 0.0
    np.testing.assert_array_equal(part.gathered_longest_s[rows, 1], whole.gathered_longest_s[rows, 1])
    gathers = whole.delay_s[:, 0] > 0.0
    assert (part.late_share[gathers, 0] == 1.0).all()
    assert (whole.late_share[gathers, 0] < 1.0).any()
    np.testing.assert_array_equal(part.late_share[~gathers, 0], whole.late_share[~gathers, 0])
    for kept in ("possible", "delay_s", "busy"):
        np.testing.assert_array_equal(getattr(part, kept), getattr(whole, kept))


def test_where_a_single_image_takes_too_long_everything_is_late() -> None:
    assert (regime(10.0, limit_s=0.003).late_share[:, 1] == 1.0).all()
    assert (regime(10.0, limit_s=0.003).late_share[0, 0]) < 1.0


def test_the_longest_latency_is_a_batch_behind_a_batch_or_a_delay_and_a_batch() -> None:
    found = regime(1e-3)
    crowded = regime(500.0)
    for column in range(len(SLOWER)):
        assert longest_s(found, 0, column) == pytest.approx(2.0 * TIMES_S[0, column], rel=0.01)
        assert longest_s(crowded, 40, column) >= crowded.delay_s[40, column] + TIMES_S[40, column]


def drawn_overflow(share: float, batch: int, spare: int) -> float:
    """Let batches of one size work off what comes, and count who finds more than `spare` left over."""
    random, left, beyond, rounds = np.random.default_rng(7), 0, 0, 100_000
    for arrived in random.poisson(share * batch, rounds).tolist():
        left = max(0, left + arrived - batch)
        beyond += left > spare
    return beyond / rounds


@pytest.mark.parametrize(("share", "spare"), [(0.8, 5), (0.9, 10), (0.95, 20)])
def test_overflow_is_foreseen_on_the_careful_side(share: float, spare: int) -> None:
    foreseen = overflow_share(Load(share * 1000.0, 1.0), np.array([1000.0]), np.array([float(spare)]))[0]
    assert 0.1 * foreseen < drawn_overflow(share, 32, spare) < foreseen


def test_overflow_falls_with_room_and_rises_with_load() -> None:
    capacity, spare = np.array([1000.0]), np.array([0.0, 10.0, 20.0, 40.0])
    shares = overflow_share(Load(900.0, 2.0), capacity, spare)
    assert shares[0] == 1.0
    assert shares[3] == pytest.approx(shares[2] ** 2) == pytest.approx(shares[1] ** 4)
    rising = [overflow_share(Load(rate, 2.0), capacity, spare)[2] for rate in (100.0, 500.0, 900.0, 999.0)]
    assert rising == sorted(rising)
    assert len(set(rising)) == 4
    assert overflow_share(Load(900.0, 8.0), capacity, spare)[2] > shares[2]


def test_at_capacity_and_beyond_everything_overflows() -> None:
    room = np.array([1e6])
    for rate in (1000.0, 1500.0):
        assert overflow_share(Load(rate, 1.0), np.array([1000.0]), room)[0] == 1.0
    assert overflow_share(Load(0.0, 1.0), np.array([1000.0]), np.array([1.0]))[0] < 1e-9


def test_the_largest_batch_in_time_is_the_last_that_fits() -> None:
    times_s = np.array([[1.0, 2.0, 5.0], [2.0, 3.0, 6.0], [3.0, 9.0, 7.0]])
    assert largest_in_time(times_s, 3.0).tolist() == [2, 1, 0], "none fits the last, so a single image"


def test_deviations_are_those_of_uneven_counts() -> None:
    assert deviations(100.0, 4.0, 2.0) == 140.0
    assert deviations(0.0, 0.0, 3.0) == 3.0, "never less than those of one image"
    assert math.isclose(deviations(9.0, 1.0, 1.0), 12.0)
