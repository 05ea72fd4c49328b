from __future__ import annotations

import math
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import given

from optimizer.deadlines import DeadlineHeap, ForwardClock


@dataclass(eq=False)
class Waiter:
    deadline_s: float
    queued: bool = True


def leave(heap: DeadlineHeap[Waiter], waiter: Waiter) -> None:
    waiter.queued = False
    heap.forget()


class TestForwardClock:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1))
    def test_never_goes_back(self, readings: list[float]) -> None:
        clock = ForwardClock()
        inner = [clock.advance(reading) for reading in readings]
        assert inner == sorted(inner)

    @given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_a_time_to_wake_is_never_too_early(self, start_s: float, jump_s: float, later_s: float) -> None:
        clock = ForwardClock()
        clock.advance(start_s)
        due_s = clock.advance(start_s - jump_s) + later_s
        assert clock.advance(clock.to_caller(due_s)) >= due_s

    def test_a_clock_that_behaves_is_left_alone(self) -> None:
        clock = ForwardClock()
        assert [clock.advance(t) for t in (5.0, 5.0, 7.5)] == [5.0, 5.0, 7.5]
        assert clock.to_caller(9.25) == 9.25


class TestDeadlineHeap:
    @given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=300))
    def test_the_earliest_of_those_still_there(self, plan: list[tuple[float, bool]]) -> None:
        heap: DeadlineHeap[Waiter] = DeadlineHeap()
        waiters = [Waiter(deadline_s) for deadline_s, _ in plan]
        for waiter, (_, leaves) in zip(waiters, plan, strict=True):
            heap.push(waiter.deadline_s, waiter)
            if leaves:
                leave(heap, waiter)
            expected = min(
                (w.deadline_s for w in waiters if w.queued and w in pushed(heap)), default=math.inf
            )
            assert heap.earliest_s() == expected

    def test_those_that_left_do_not_pile_up(self) -> None:
        heap: DeadlineHeap[Waiter] = DeadlineHeap()
        first = Waiter(0.0)
        heap.push(0.0, first)
        for second in range(1, 10_000):
            waiter = Waiter(float(second))
            heap.push(waiter.deadline_s, waiter)
            leave(heap, waiter)
        assert len(heap) < 200
        assert heap.earliest() is first


def pushed(heap: DeadlineHeap[Waiter]) -> list[Waiter]:
    return [waiter for _, _, waiter in heap._heap]


def test_a_deadline_that_is_over_for_the_caller_is_over_despite_rounding() -> None:
    clock = ForwardClock()
    for caller_s in (1000.0, 0.538440821832, -4096.461559178168):
        now_s = clock.advance(caller_s)
        assert clock.inner(caller_s, caller_s) <= now_s
        assert clock.inner(caller_s - 1.0, caller_s) < now_s
        assert clock.inner(caller_s + 1.0, caller_s) > now_s
