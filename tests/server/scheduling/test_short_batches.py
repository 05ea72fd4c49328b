"""What the event loop runs itself."""

from __future__ import annotations

from server.scheduling.service_time import ServiceTimes
from server.scheduling.short_batches import LOOK_AGAIN, ShortBatches

US = 1e-6


def batches(**times_us: float) -> ShortBatches:
    """Knows that a batch of `nN` images took so many microseconds."""
    times = ServiceTimes()
    for name, value in times_us.items():
        times.observe(int(name.removeprefix("n")), value * US)
    return ShortBatches(times)


def test_nothing_is_known() -> None:
    assert ShortBatches(ServiceTimes()).most(1) is None


def test_short_batches() -> None:
    assert batches(n1=100).most(1) == 1
    assert batches(n8=200).most(8) == 8
    assert batches(n1=300).most(1) is None


def test_so_few_images_are_short_one_by_one_and_so_together() -> None:
    assert batches(n1=80).most(3) == 3
    assert batches(n1=80, n2=900).most(2) == 2  # as it was in the thread, or when it ran first


def test_a_crowd_of_unknown_cost_is_tried_in_the_thread() -> None:
    assert batches(n1=80).most(16) is None


def test_a_crowd_that_is_cheaper_apart_is_run_a_few_at_a_time() -> None:
    assert batches(n1=80, n16=2000).most(16) == 3


def test_a_crowd_that_is_cheaper_together_stays_together() -> None:
    assert batches(n1=80, n16=400).most(16) is None


def test_no_handing_over_for_a_gain_that_is_smaller_than_it() -> None:
    assert batches(n1=80, n8=500).most(8) == 3


def test_images_that_are_long_alone_are_not_run_here() -> None:
    assert batches(n1=300, n16=9000).most(16) is None


def test_a_crowd_is_looked_at_again_now_and_then() -> None:
    short = batches(n1=80, n16=2000)
    chosen = [short.most(16) for _ in range(2 * LOOK_AGAIN)]
    assert chosen.count(None) == 2


def test_times_below_the_clock_s_resolution() -> None:
    assert batches(n1=0).most(5) == 5
