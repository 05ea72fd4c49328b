"""What the event loop runs itself."""

from __future__ import annotations

from server.scheduling.service_time import ServiceTimes
from server.scheduling.short_batches import ALL_IN_THREAD, FEW_IMAGES, Portion, ShortBatches

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


def serve(short: ShortBatches, crowds: int, apart_us: float, together_us: float) -> list[Portion]:
    """Have crowds of 16 wait all the time, at such a cost an image; what was to be run of each."""
    chosen, now_s = [], 0.0
    for _ in range(crowds):
        portion = short.portion(16)
        few = portion.images
        short.began(few or 16, now_s, apart=few is not None)
        now_s += (few or 16) * (apart_us if few else together_us) * US
        chosen.append(portion)
    return chosen


def here(images: int) -> Portion:
    return Portion(images, here=True)


def test_nothing_is_known() -> None:
    assert ShortBatches(ServiceTimes()).portion(1) == ALL_IN_THREAD
    assert ShortBatches(ServiceTimes()).portion(16) == Portion(FEW_IMAGES, here=False)


def test_short_batches() -> None:
    assert batches(n1=100).portion(1) == here(1)
    assert batches(n8=200).portion(8) == here(8)
    assert batches(n1=300).portion(1) == ALL_IN_THREAD


def test_so_few_images_are_short_one_by_one_and_so_together() -> None:
    assert batches(n1=80).portion(3) == here(3)
    assert batches(n1=80, n2=900).portion(2) == here(2)  # as it was in the thread, or when it ran first


def test_a_crowd_that_is_cheaper_apart_is_run_a_few_at_a_time() -> None:
    chosen = serve(batches(n1=80), 3000, apart_us=100, together_us=150)[-1000:]
    assert set(chosen) == {here(6), ALL_IN_THREAD}
    assert chosen.count(here(6)) > 0.9 * len(chosen)


def test_a_crowd_that_is_cheaper_together_stays_together() -> None:
    chosen = serve(batches(n1=80), 3000, apart_us=150, together_us=100)[-1000:]
    assert chosen.count(ALL_IN_THREAD) > 0.7 * len(chosen)  # crowds: sixteen images each, apart only six


def test_images_that_are_short_only_alone_may_run_apart_one_by_one() -> None:
    short = batches(n1=300)
    assert short.portion(2) == here(1)
    assert short.portion(1) == ALL_IN_THREAD


def test_how_long_one_alone_took_when_disturbed_does_not_count() -> None:
    assert batches(n1=200, n2=200).portion(2) == here(2)
    assert batches(n1=400, n2=160).portion(16) == here(6)


def test_a_crowd_of_long_images_is_run_a_few_at_a_time_by_the_thread_where_that_is_cheaper() -> None:
    few = Portion(FEW_IMAGES, here=False)
    chosen = serve(batches(n1=1500), 3000, apart_us=1500, together_us=2000)[-1000:]
    assert set(chosen) == {few, ALL_IN_THREAD}
    assert chosen.count(few) > 0.9 * len(chosen)
    chosen = serve(batches(n1=1500), 3000, apart_us=2000, together_us=1500)[-1000:]
    assert chosen.count(ALL_IN_THREAD) > 0.7 * len(chosen)


def test_few_long_images_are_no_crowd() -> None:
    assert batches(n1=1500).portion(FEW_IMAGES) == ALL_IN_THREAD


def test_waits_for_work_are_no_cost_of_a_way_but_the_loop_s_work_is() -> None:
    """Crowds come once a second. All 16 images take 1 ms together and the loop then 2; apart 2 ms in all."""
    worked_s = 0.0
    short = ShortBatches(times_of(n1=80), busy=lambda: worked_s)
    gone = []
    for second in range(3000):
        portion = short.portion(16)
        short.began(16, second, apart=portion.here)
        short.paused(second + (0.002 if portion.here else 0.001))
        worked_s += 0.0 if portion.here else 0.002
        gone.append(portion)
    assert gone[-1000:].count(here(6)) > 900
    assert ALL_IN_THREAD in gone


def test_times_below_the_clock_s_resolution() -> None:
    assert batches(n1=0).portion(5) == here(5)
