from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from optimizer.batching import (
    SLACK_MARGIN_S,
    SLACK_MARGIN_SHARE,
    BatchQueue,
    QueueLimits,
    Refusal,
    Request,
    Step,
)

ROOMY = QueueLimits(max_images=1000, max_bytes=1_000_000)


def linear_s(images: int) -> float:
    return 0.010 + 0.001 * images


def unknown_s(images: int) -> float:
    return 0.0


def queue_of(
    batch_limit: int = 4,
    max_delay_s: float = 0.0,
    limits: QueueLimits = ROOMY,
    service_time_s: Callable[[int], float] = unknown_s,
) -> BatchQueue[str]:
    return BatchQueue(limits, batch_limit, max_delay_s, service_time_s)


def request(
    name: str = "r", images: int = 1, *, nbytes: int = 10, deadline_s: float | None = None, priority: int = 0
) -> Request[str]:
    return Request(name, images, nbytes, 0.0, deadline_s, priority)


def names(step: Step[str]) -> list[tuple[str, int, int]]:
    return [(s.request.payload, s.start, s.images) for s in step.batch.slices] if step.batch else []


class TestDispatch:
    def test_without_delay_an_idle_engine_takes_what_there_is(self) -> None:
        queue = queue_of()
        queue.offer(request("a"), 1.0)
        assert names(queue.step(1.0, engine_idle=True)) == [("a", 0, 1)]
        assert len(queue) == queue.queued_images == queue.queued_bytes == 0

    def test_a_busy_engine_is_given_only_full_batches(self) -> None:
        queue = queue_of(batch_limit=3)
        for name in "ab":
            queue.offer(request(name), 0.0)
        assert queue.step(9.0, engine_idle=False).batch is None
        queue.offer(request("c"), 9.0)
        assert names(queue.step(9.0, engine_idle=False)) == [("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]

    def test_a_batch_may_wait_to_grow_until_the_oldest_has_waited_the_delay(self) -> None:
        queue = queue_of(max_delay_s=0.5)
        queue.offer(request("a"), 1.0)
        queue.offer(request("b"), 1.4)
        waiting = queue.step(1.4, engine_idle=True)
        assert (waiting.batch, waiting.wake_s) == (None, 1.5)
        assert names(queue.step(1.5, engine_idle=True)) == [("a", 0, 1), ("b", 0, 1)]

    def test_the_batch_limit_ends_the_wait(self) -> None:
        queue = queue_of(batch_limit=2, max_delay_s=60.0)
        queue.offer(request("a"), 0.0)
        queue.offer(request("b"), 0.0)
        assert names(queue.step(0.0, engine_idle=True)) == [("a", 0, 1), ("b", 0, 1)]

    def test_the_most_urgent_deadline_ends_the_wait_with_a_margin(self) -> None:
        queue = queue_of(max_delay_s=60.0, service_time_s=linear_s)
        queue.offer(request("patient"), 0.0)
        queue.offer(request("urgent", deadline_s=1.0), 0.0)
        wake_s = queue.step(0.0, engine_idle=True).wake_s
        assert wake_s == pytest.approx(1.0 - SLACK_MARGIN_S - (1 + SLACK_MARGIN_SHARE) * linear_s(2))
        assert names(queue.step(wake_s, engine_idle=True)) == [("patient", 0, 1), ("urgent", 0, 1)]

    def test_a_larger_request_is_split_in_order_and_shares_its_last_batch(self) -> None:
        queue = queue_of(batch_limit=4)
        queue.offer(request("big", 9), 0.0)
        queue.offer(request("small", 2), 0.0)
        steps = [names(queue.step(0.0, engine_idle=True)) for _ in range(4)]
        assert steps == [[("big", 0, 4)], [("big", 4, 4)], [("big", 8, 1), ("small", 0, 2)], []]

    def test_a_larger_request_fills_the_room_behind_a_small_one(self) -> None:
        queue = queue_of(batch_limit=4)
        queue.offer(request("small", 1), 0.0)
        queue.offer(request("big", 6), 0.0)
        assert names(queue.step(0.0, engine_idle=True)) == [("small", 0, 1), ("big", 0, 3)]
        assert names(queue.step(0.0, engine_idle=True)) == [("big", 3, 3)]

    def test_a_caller_that_wants_few_gets_no_more_and_no_request_split_for_it(self) -> None:
        queue = queue_of(batch_limit=4)
        for name in "abc":
            queue.offer(request(name), 0.0)
        queue.offer(request("pair", 3), 0.0)
        steps = [names(queue.step(0.0, engine_idle=True, most_images=2)) for _ in range(4)]
        assert steps == [[("a", 0, 1), ("b", 0, 1)], [("c", 0, 1)], [("pair", 0, 3)], []]

    def test_a_request_that_fits_into_one_batch_is_not_split(self) -> None:
        queue = queue_of(batch_limit=4)
        queue.offer(request("a", 3), 0.0)
        queue.offer(request("b", 3), 0.0)
        assert names(queue.step(0.0, engine_idle=False)) == [("a", 0, 3)]
        assert names(queue.step(0.0, engine_idle=False)) == []
        assert names(queue.step(0.0, engine_idle=True)) == [("b", 0, 3)]

    def test_urgent_goes_first_and_within_a_priority_the_first_come(self) -> None:
        queue = queue_of(batch_limit=3)
        for name, priority in (("c", 2), ("a1", 0), ("d", 99), ("a2", 0), ("b", 1)):
            queue.offer(request(name, priority=priority), 0.0)
        assert [name for name, _, _ in names(queue.step(0.0, engine_idle=True))] == ["a1", "a2", "b"]
        assert [name for name, _, _ in names(queue.step(0.0, engine_idle=True))] == ["c", "d"]

    def test_limits_changed_while_requests_wait_hold_at_the_next_step(self) -> None:
        queue = queue_of(batch_limit=8, max_delay_s=60.0)
        queue.offer(request("a", 5), 0.0)
        assert queue.step(0.0, engine_idle=True).batch is None
        queue.batch_limit = 2
        assert names(queue.step(0.0, engine_idle=True)) == [("a", 0, 2)]
        queue.batch_limit = 8
        assert queue.step(0.0, engine_idle=True).batch is None
        queue.max_delay_s = 0.0
        assert names(queue.step(0.0, engine_idle=True)) == [("a", 2, 3)]


class TestAdmission:
    def test_bounded_by_images(self) -> None:
        queue = queue_of(limits=QueueLimits(max_images=3, max_bytes=1000))
        assert queue.offer(request(images=4), 0.0) is Refusal.TOO_LARGE
        assert queue.offer(request(images=2), 0.0) is None
        assert queue.offer(request(images=2), 0.0) is Refusal.QUEUE_FULL
        queue.step(0.0, engine_idle=True)
        assert queue.offer(request(images=2), 0.0) is None

    def test_bounded_by_bytes_until_the_last_row_is_handed_out(self) -> None:
        queue = queue_of(batch_limit=1, limits=QueueLimits(max_images=10, max_bytes=100))
        assert queue.offer(request(nbytes=101), 0.0) is Refusal.TOO_LARGE
        assert queue.offer(request(images=2, nbytes=60), 0.0) is None
        queue.step(0.0, engine_idle=True)
        assert queue.offer(request(nbytes=60), 0.0) is Refusal.QUEUE_FULL
        queue.step(0.0, engine_idle=True)
        assert queue.offer(request(nbytes=60), 0.0) is None

    def test_a_deadline_that_the_queue_ahead_makes_impossible_is_refused(self) -> None:
        queue = queue_of(batch_limit=4, service_time_s=linear_s)
        for _ in range(8):
            queue.offer(request(), 0.0)
        end_s = 2 * linear_s(4) + linear_s(1)
        assert queue.offer(request(deadline_s=end_s - 0.001), 0.0) is Refusal.DEADLINE
        assert queue.offer(request(deadline_s=end_s + 0.001), 0.0) is None

    def test_what_is_less_urgent_is_not_ahead(self) -> None:
        queue = queue_of(batch_limit=4, service_time_s=linear_s)
        for _ in range(8):
            queue.offer(request(priority=5), 0.0)
        assert queue.offer(request(deadline_s=0.012, priority=4), 0.0) is None
        assert queue.offer(request(deadline_s=0.012, priority=5), 0.0) is Refusal.DEADLINE

    def test_the_running_batch_is_ahead(self) -> None:
        queue = queue_of(batch_limit=4, service_time_s=linear_s)
        queue.offer(request(images=4), 0.0)
        queue.step(0.0, engine_idle=True)
        assert queue.offer(request(deadline_s=0.020), 0.0) is Refusal.DEADLINE
        assert queue.offer(request(deadline_s=0.026), 0.0) is None

    def test_an_engine_that_is_idle_earlier_than_predicted_is_not_ahead(self) -> None:
        queue = queue_of(batch_limit=4, service_time_s=linear_s)
        queue.offer(request(images=4), 0.0)
        queue.step(0.0, engine_idle=True)
        queue.step(0.002, engine_idle=True)
        assert queue.offer(request(deadline_s=0.020), 0.002) is None

    def test_a_deadline_in_the_past_is_refused_though_nothing_is_known(self) -> None:
        assert queue_of().offer(request(deadline_s=5.0), 5.0) is Refusal.DEADLINE

    def test_nonsense_is_an_error_of_the_caller(self) -> None:
        queue = queue_of()
        with pytest.raises(ValueError, match="at least 1 image"):
            queue.offer(request(images=0), 0.0)
        waiting = request()
        queue.offer(waiting, 0.0)
        with pytest.raises(ValueError, match="already queued"):
            queue.offer(waiting, 0.0)

    @pytest.mark.parametrize("limit", [0, -3])
    def test_batch_limit_is_at_least_one(self, limit: int) -> None:
        with pytest.raises(ValueError, match=f"at least 1 image, got {limit}"):
            queue_of(batch_limit=limit)

    @pytest.mark.parametrize("delay_s", [-0.1, math.inf, math.nan])
    def test_delay_is_finite_and_not_negative(self, delay_s: float) -> None:
        with pytest.raises(ValueError, match="max_delay_s must be finite"):
            queue_of(max_delay_s=delay_s)

    def test_queue_limits_are_at_least_one(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            queue_of(limits=QueueLimits(max_images=0, max_bytes=1))


class TestCancellation:
    def test_while_queued(self) -> None:
        queue = queue_of()
        first, second = request("a"), request("b")
        queue.offer(first, 0.0)
        queue.offer(second, 0.0)
        assert queue.cancel(first)
        assert not queue.cancel(first)
        assert (len(queue), queue.queued_images, queue.queued_bytes) == (1, 1, 10)
        assert names(queue.step(0.0, engine_idle=True)) == [("b", 0, 1)]

    def test_while_partly_handed_out(self) -> None:
        queue = queue_of(batch_limit=2)
        big = request("big", 5)
        queue.offer(big, 0.0)
        queue.step(0.0, engine_idle=True)
        assert queue.cancel(big)
        assert (len(queue), queue.queued_images, queue.queued_bytes) == (0, 0, 0)
        assert queue.step(0.0, engine_idle=True).batch is None

    def test_after_it_was_handed_out(self) -> None:
        queue = queue_of()
        gone = request()
        queue.offer(gone, 0.0)
        queue.step(0.0, engine_idle=True)
        assert not queue.cancel(gone)

    def test_a_cancelled_deadline_wakes_nobody(self) -> None:
        queue = queue_of(max_delay_s=1.0)
        urgent = request(deadline_s=0.5)
        queue.offer(urgent, 0.0)
        queue.cancel(urgent)
        assert queue.step(0.0, engine_idle=True).wake_s is None

    def test_cancelled_deadlines_do_not_pile_up_behind_one_that_waits(self) -> None:
        queue = queue_of(max_delay_s=1.0)
        queue.offer(request("first", deadline_s=1.0), 0.0)
        for _ in range(1000):
            later = request("later", deadline_s=2.0)
            queue.offer(later, 0.0)
            queue.cancel(later)
        assert len(queue._deadlines) < 200


class TestExpiry:
    def test_at_the_deadline_even_while_the_engine_is_busy(self) -> None:
        queue = queue_of()
        urgent = request("urgent", deadline_s=1.0)
        queue.offer(urgent, 0.0)
        assert queue.step(0.5, engine_idle=False).wake_s == 1.0
        assert queue.step(1.0, engine_idle=False).expired == (urgent,)
        assert queue.queued_images == 0

    def test_expire_takes_no_batch(self) -> None:
        queue = queue_of(batch_limit=1)
        urgent = request("urgent", deadline_s=1.0)
        queue.offer(urgent, 0.0)
        queue.offer(request("patient"), 0.0)
        step = queue.expire(1.0)
        assert (step.batch, step.expired, step.wake_s) == (None, (urgent,), None)
        assert len(queue) == 1

    def test_what_a_saturated_engine_could_only_answer_late_makes_room_for_the_rest(self) -> None:
        queue = queue_of(batch_limit=2, service_time_s=linear_s)
        hopeless = request("hopeless", deadline_s=0.0119)
        queue.offer(hopeless, 0.0)
        for name in "abc":
            queue.offer(request(name), 0.0)
        step = queue.step(0.0, engine_idle=True)
        assert step.expired == (hopeless,)
        assert names(step) == [("a", 0, 1), ("b", 0, 1)]

    def test_a_partly_handed_out_request_expires_once_with_all_its_rest(self) -> None:
        queue = queue_of(batch_limit=2)
        big = request("big", 6, deadline_s=1.0)
        queue.offer(big, 0.0)
        queue.step(0.0, engine_idle=True)
        assert queue.step(2.0, engine_idle=True).expired == (big,)
        assert (len(queue), queue.queued_images, queue.queued_bytes) == (0, 0, 0)


class TestEnd:
    def test_draining_refuses_the_new_and_hands_out_the_old_at_once(self) -> None:
        queue = queue_of(batch_limit=4, max_delay_s=60.0)
        for name in "abcde":
            queue.offer(request(name), 0.0)
        queue.drain()
        assert queue.offer(request("late"), 0.0) is Refusal.DRAINING
        assert len(names(queue.step(0.0, engine_idle=True))) == 4
        assert names(queue.step(0.0, engine_idle=False)) == [("e", 0, 1)]

    def test_clear_returns_everything_that_waits(self) -> None:
        queue = queue_of(batch_limit=2)
        low, big = request("low", priority=3, deadline_s=9.0), request("big", 5)
        queue.offer(low, 0.0)
        queue.offer(big, 0.0)
        queue.step(0.0, engine_idle=True)
        assert queue.clear() == (big, low)
        assert (len(queue), queue.queued_images, queue.queued_bytes) == (0, 0, 0)
        assert queue.step(99.0, engine_idle=True).wake_s is None


class TestTimeGoingBackwards:
    def test_waiting_goes_on_from_where_it_was(self) -> None:
        queue = queue_of(max_delay_s=2.0)
        queue.offer(request("a"), 100.0)
        assert queue.step(101.0, engine_idle=True).batch is None
        assert queue.step(40.0, engine_idle=True).wake_s == pytest.approx(41.0)
        assert names(queue.step(41.0, engine_idle=True)) == [("a", 0, 1)]

    def test_deadlines_keep_the_time_they_had_left(self) -> None:
        queue = queue_of()
        before = request("before", deadline_s=102.0)
        queue.offer(before, 100.0)
        queue.step(101.0, engine_idle=False)
        queue.step(40.0, engine_idle=False)
        after = request("after", deadline_s=43.0)
        queue.offer(after, 40.0)
        assert queue.step(41.0, engine_idle=False).expired == (before,)
        assert queue.step(43.0, engine_idle=False).expired == (after,)
