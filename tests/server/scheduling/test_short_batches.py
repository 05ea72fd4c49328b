"""What the event loop runs itself."""

from __future__ import annotations

from server.scheduling.service_time import ServiceTimes
from server.scheduling.short_batches import ShortBatches

US = 1e-6


def times_of(**times_us: float) -> ServiceTimes:
    """A batch of `nN` images took so many microseconds."""
    times = ServiceTimes()
    for name, value in times_us.items():
        times.observe(int(name.removeprefix("n")), value * US)
    return times


def batches(**times_us: float) -> ShortBatches:
    """Knows that a batch of `nN` images took so many microseconds."""
    return ShortBatches(times_of(**times_us))


def serve(short: ShortBatches, crowds: int, apart_us: float, together_us: float) -> list[int | None]:
    """Have crowds of 16 wait all the time, at such a cost an image; how many the loop was to run of each."""
    chosen, now_s = [], 0.0
    for _ in range(crowds):
        few = short.most(16)
        short.began(few or 16, now_s, here=few is not None)
        now_s += (few or 16) * (apart_us if few else together_us) * US
        chosen.append(few)
    return chosen


def test_nothing_is_known() -> None:
    assert ShortBatches(ServiceTimes()).most(1) is None
    assert ShortBatches(ServiceTimes()).most(16) is None


def test_short_batches() -> None:
    assert batches(n1=100).most(1) == 1
    assert batches(n8=200).most(8) == 8
    assert batches(n1=300).most(1) is None


def test_so_few_images_are_short_one_by_one_and_so_together() -> None:
    assert batches(n1=80).most(3) == 3
    assert batches(n1=80, n2=900).most(2) == 2  # as it was in the thread, or when it ran first


def test_a_crowd_that_is_cheaper_apart_is_run_a_few_at_a_time() -> None:
    chosen = serve(batches(n1=80), 3000, apart_us=100, together_us=150)[-1000:]
    assert set(chosen) == {6, None}
    assert chosen.count(6) > 0.9 * len(chosen)


def test_a_crowd_that_is_cheaper_together_stays_together() -> None:
    chosen = serve(batches(n1=80), 3000, apart_us=150, together_us=100)[-1000:]
    assert chosen.count(None) > 0.7 * len(chosen)  # crowds: sixteen images each, apart only six


def test_images_that_are_short_only_alone_may_run_apart_one_by_one() -> None:
    short = batches(n1=300)
    assert short.most(2) == 1
    assert short.most(1) is None


def test_how_long_one_alone_took_when_disturbed_does_not_count() -> None:
    assert batches(n1=200, n2=200).most(2) == 2
    assert batches(n1=400, n2=160).most(16) == 6


def test_images_that_are_long_alone_are_not_run_here() -> None:
    chosen = serve(batches(n1=1500), 100, apart_us=1, together_us=1500)
    assert set(chosen) == {None}


def test_waits_for_work_are_no_cost_of_a_way_but_the_loop_s_work_is() -> None:
    """Crowds come once a second. All 16 images take 1 ms together and the loop then 2; apart 2 ms in all."""
    worked_s = 0.0
    short = ShortBatches(times_of(n1=80), busy=lambda: worked_s)
    gone = []
    for second in range(3000):
        few = short.most(16)
        short.began(16, second, here=few is not None)
        short.paused(second + (0.002 if few else 0.001))
        worked_s += 0.0 if few else 0.002
        gone.append(few)
    assert gone[-1000:].count(6) > 900
    assert None in gone


def test_times_below_the_clock_s_resolution() -> None:
    assert batches(n1=0).most(5) == 5
