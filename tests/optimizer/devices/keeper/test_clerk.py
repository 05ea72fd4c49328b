"""The clerk, by hand and against random histories of clients that die and hang and of GPUs that refuse."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.clerk import Clerk, Effect, Job, Note, Outcome, Reply, Work
from optimizer.devices.keeper.lease import RESTORE_AGAIN_S, Lease
from optimizer.devices.keeper.protocol import (
    Acquire,
    AskBounds,
    Hello,
    Release,
    Renew,
    Request,
    Set,
)
from optimizer.devices.nvml.actuator import ClockBounds
from optimizer.devices.nvml.failures import NvmlFailure

LEASE_S = 1.5
BOUNDS = ClockBounds(500, 1000)
FAST = Set(1000, None, None)


@dataclass
class Desk:
    """A clerk with GPUs that do at once what they are told, unless a failure is scripted."""

    clerk: Clerk
    now_s: float = 0.0
    failing: frozenset[Work] = frozenset()
    slow: bool = False
    failure: DeviceError = field(default_factory=lambda: DeviceError("it refused"))

    def __post_init__(self) -> None:
        self.waiting: list[Job] = []
        self.done: list[Job] = []
        self.notes: list[Note] = []
        self.answers: dict[int, list[dict[str, object]]] = {}
        self.hung_up: set[int] = set()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Note):
                self.notes.append(effect)
            elif isinstance(effect, Job):
                self.waiting.append(effect)
            else:
                self._answer(effect)
        if not self.slow:
            self.work()

    def _answer(self, reply: Reply) -> None:
        self.answers.setdefault(reply.connection, []).append(json.loads(reply.line))
        if reply.hang_up:
            self.hung_up.add(reply.connection)

    def work(self) -> None:
        """Let the GPUs finish."""
        while self.waiting:
            job = self.waiting.pop(0)
            self.done.append(job)
            failed = self.failure if job.work in self.failing else None
            bounds = BOUNDS if job.work is Work.INSPECT and failed is None else None
            self.take(self.clerk.done(Outcome(job, bounds, failed), self.now_s))

    def open(self, connection: int) -> None:
        self.clerk.opened(connection, f"pid {connection}, uid 7")
        assert self.ask(connection, Hello(1))["ok"]

    def ask(self, connection: int, request: Request) -> dict[str, object]:
        self.take(self.clerk.asked(connection, request, self.now_s))
        return self.answers[connection][-1]

    def code(self, connection: int, request: Request) -> object:
        answer = self.ask(connection, request)
        return answer.get("code", "ok" if answer["ok"] else None)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.take(self.clerk.tick(self.now_s))

    def works(self) -> list[Work]:
        return [job.work for job in self.done]


def desk(*uuids: str) -> Desk:
    made = Desk(Clerk(uuids or ("GPU-a", "GPU-b"), LEASE_S))
    made.open(1)
    return made


def test_a_gpu_is_acquired_set_renewed_and_released() -> None:
    here = desk()
    assert here.ask(1, Acquire("GPU-a"))["bounds"]["sm_high_mhz"] == 1000
    assert here.code(1, FAST) == "ok"
    assert here.code(1, Renew()) == "ok"
    assert here.code(1, Release()) == "ok"
    assert here.works() == [Work.INSPECT, Work.APPLY, Work.RESTORE]
    assert here.clerk.all_restored


def test_bounds_can_be_asked_without_taking_the_gpu() -> None:
    here = desk()
    assert here.ask(1, AskBounds("GPU-a"))["bounds"] == here.ask(1, AskBounds("GPU-a"))["bounds"]
    assert here.works() == [Work.INSPECT]
    assert here.clerk.all_restored


@pytest.mark.parametrize("request_sent", [AskBounds("GPU-a"), Acquire("GPU-a"), FAST, Renew(), Release()])
def test_nothing_goes_without_hello(request_sent: Request) -> None:
    here = Desk(Clerk(("GPU-a",), LEASE_S))
    here.clerk.opened(1, "pid 1, uid 7")
    assert here.code(1, request_sent) == "no_hello"
    assert here.done == []


def test_another_version_is_refused_and_hung_up_on() -> None:
    here = Desk(Clerk(("GPU-a",), LEASE_S))
    here.clerk.opened(1, "pid 1, uid 7")
    assert here.code(1, Hello(2)) == "version"
    assert here.hung_up == {1}


@pytest.mark.parametrize("request_sent", [FAST, Renew(), Release()])
def test_nothing_is_set_without_a_lease(request_sent: Request) -> None:
    here = desk()
    assert here.code(1, request_sent) == "no_lease"
    assert here.done == []


def test_a_gpu_that_is_not_listed_is_not_touched() -> None:
    here = desk("GPU-a")
    assert here.code(1, Acquire("GPU-x")) == "unknown_gpu"
    assert here.code(1, AskBounds("GPU-x")) == "unknown_gpu"
    assert here.done == []


def test_the_second_is_told_who_holds_the_gpu() -> None:
    here = desk()
    here.open(2)
    here.ask(1, Acquire("GPU-a"))
    answer = here.ask(2, Acquire("GPU-a"))
    assert (answer["code"], answer["error"]) == ("held", "GPU-a is held by pid 1, uid 7")
    assert here.code(2, FAST) == "no_lease"
    assert here.code(2, Acquire("GPU-b")) == "ok"


def test_one_connection_holds_one_gpu() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    assert here.code(1, Acquire("GPU-b")) == "one_gpu"
    assert here.code(1, Acquire("GPU-a")) == "ok"


def test_what_is_out_of_bounds_leaves_all_as_it_was() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    assert here.code(1, Set(1001, None, None)) == "out_of_bounds"
    assert here.works() == [Work.INSPECT]
    assert here.code(1, FAST) == "ok"


def test_a_silent_holder_loses_the_gpu_and_learns_of_it() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.ask(1, FAST)
    here.pass_time(LEASE_S)
    assert here.works()[-1] is Work.RESTORE
    assert here.clerk.all_restored
    assert here.code(1, Renew()) == "expired"
    assert here.code(1, FAST) == "expired"
    assert here.code(1, Acquire("GPU-a")) == "ok"
    assert here.code(1, FAST) == "ok"


def test_a_lease_does_not_run_while_its_gpu_is_being_set() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.slow = True
    here.take(here.clerk.asked(1, FAST, here.now_s))
    assert here.clerk.waiting(1)
    here.pass_time(100.0)
    assert [job.work for job in here.waiting] == [Work.APPLY]
    here.work()
    assert not here.clerk.waiting(1)
    here.pass_time(LEASE_S)
    assert here.waiting[-1].work is Work.RESTORE


def test_a_client_that_dies_while_its_gpu_is_being_set_is_cleaned_up_after() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.slow = True
    here.take(here.clerk.asked(1, FAST, here.now_s))
    here.take(here.clerk.closed(1))
    assert [job.work for job in here.waiting] == [Work.APPLY, Work.RESTORE]
    here.work()
    assert here.clerk.all_restored


def test_a_gpu_that_refuses_is_given_back_and_its_lease_ends() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.failing = frozenset({Work.APPLY})
    assert here.code(1, FAST) == "gpu"
    assert here.works()[-1] is Work.RESTORE
    assert here.code(1, FAST) == "no_lease"
    assert here.code(1, Acquire("GPU-a")) == "ok"


def test_a_gpu_that_may_not_be_set_is_not_held() -> None:
    here = desk()
    here.failing = frozenset({Work.INSPECT})
    assert here.code(1, Acquire("GPU-a")) == "gpu"
    assert here.clerk.all_restored
    assert here.clerk.holder("GPU-a") is None


def test_a_holder_who_acquires_again_in_vain_loses_the_gpu_and_it_is_given_back() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.ask(1, FAST)
    here.failing = frozenset({Work.INSPECT})
    assert here.code(1, Acquire("GPU-a")) == "gpu"
    assert here.works()[-1] is Work.RESTORE
    assert here.clerk.all_restored


@pytest.mark.parametrize(("code", "told"), [(15, "lost"), (16, "lost"), (9, "gpu"), (999, "gpu")])
@pytest.mark.parametrize("work", [Work.INSPECT, Work.APPLY])
def test_a_client_is_told_of_a_gpu_that_is_lost(code: int, told: str, work: Work) -> None:
    here = desk()
    here.failure, here.failing = NvmlFailure("set it", function="nvmlX", code=code), frozenset({work})
    answers = [here.code(1, Acquire("GPU-a")), here.code(1, FAST)]
    assert told in answers


def test_what_is_said_of_a_gpu_is_not_said_again_of_each_client() -> None:
    here = desk()
    here.ask(1, Acquire("GPU-a"))
    here.ask(1, FAST)
    here.failing = frozenset({Work.RESTORE})
    here.notes.clear()
    assert here.code(1, Release()) == "not_restored"
    here.open(2)
    assert here.code(2, Acquire("GPU-a")) == "restoring"
    assert [note.level for note in here.notes if note.level >= logging.WARNING] == [logging.ERROR]


def test_restoring_is_tried_until_it_works_and_said_once() -> None:
    here = desk()
    here.open(2)
    here.ask(1, Acquire("GPU-a"))
    here.failing = frozenset({Work.RESTORE})
    assert here.code(1, Release()) == "not_restored"
    for _ in range(20):
        here.pass_time(RESTORE_AGAIN_S)
        assert here.code(2, Acquire("GPU-a")) == "restoring"
    assert here.works().count(Work.RESTORE) == 21
    assert len([note for note in here.notes if note.level == logging.ERROR]) == 1
    here.failing = frozenset()
    here.pass_time(RESTORE_AGAIN_S)
    assert here.code(2, Acquire("GPU-a")) == "ok"


def test_a_marker_that_was_left_over_is_seen_to_first() -> None:
    here = desk("GPU-a")
    here.slow = True
    here.take(here.clerk.found_marker("GPU-a"))
    here.take(here.clerk.found_marker("GPU-gone"))
    assert here.code(1, Acquire("GPU-a")) == "restoring"
    assert not here.clerk.all_restored
    here.slow = False
    here.work()
    assert here.clerk.all_restored
    assert here.code(1, Acquire("GPU-a")) == "ok"
    assert here.code(1, Acquire("GPU-gone")) == "unknown_gpu"


def test_stopping_gives_everything_back_and_takes_nothing_new() -> None:
    here = desk()
    here.open(2)
    here.ask(1, Acquire("GPU-a"))
    here.ask(2, Acquire("GPU-b"))
    here.take(here.clerk.stop())
    assert here.works()[-2:] == [Work.RESTORE, Work.RESTORE]
    assert here.clerk.all_restored
    for request in (FAST, Renew(), Release(), Acquire("GPU-a"), AskBounds("GPU-a")):
        assert here.code(1, request) == "stopping"


def test_who_waits_while_the_keeper_is_stopped_gets_an_answer() -> None:
    here = desk()
    here.open(2)
    here.ask(2, Acquire("GPU-b"))
    here.slow = True
    here.take(here.clerk.asked(1, Acquire("GPU-a"), 0.0))
    here.take(here.clerk.asked(2, FAST, 0.0))
    here.take(here.clerk.stop())
    here.slow = False
    here.work()
    assert here.answers[1][-1]["code"] == "stopping"
    assert here.answers[2][-1]["code"] == "stopping"
    assert here.clerk.all_restored


@given(st.lists(st.floats(0.0, 3.0), max_size=30))
def test_a_lease_ends_exactly_when_nobody_renewed_it_for_its_length(pauses: list[float]) -> None:
    lease, now_s = Lease(LEASE_S), 0.0
    lease.take(1)
    lease.run(now_s)
    for pause_s in pauses:
        ends_s = now_s + LEASE_S
        now_s += pause_s
        assert lease.next_s == ends_s
        assert lease.expired(now_s) == (now_s >= ends_s)
        lease.run(now_s)
    lease.end()
    assert lease.next_s == math.inf
    assert not lease.free


class Histories(RuleBasedStateMachine):
    """Anything in any order. A model keeps only what every GPU's thread was told to do last."""

    def __init__(self) -> None:
        super().__init__()
        self.uuids = ("GPU-a", "GPU-b")
        self.here = Desk(Clerk(self.uuids, LEASE_S), slow=True)
        self.set_: dict[str, bool] = dict.fromkeys(self.uuids, False)
        self.open: set[int] = set()
        self.heard_s: dict[int, float] = {}
        self.stopped = False

    def _idle(self) -> list[int]:
        return [number for number in sorted(self.open) if not self.here.clerk.waiting(number)]

    @rule(number=st.integers(1, 4))
    def connect(self, number: int) -> None:
        if number not in self.open:
            self.here.open(number)
            self.open.add(number)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(number)
        self.here.take(self.here.clerk.closed(number))
        assert all(self.here.clerk.holder(uuid) != number for uuid in self.uuids)

    @precondition(lambda self: self._idle())
    @rule(
        data=st.data(),
        request=st.sampled_from(
            [
                Acquire("GPU-a"),
                Acquire("GPU-b"),
                FAST,
                Set(1, None, None),
                Renew(),
                Release(),
                AskBounds("GPU-b"),
            ]
        ),
    )
    def ask(self, data: st.DataObject, request: Request) -> None:
        number = data.draw(st.sampled_from(self._idle()))
        before = len(self.here.answers.get(number, ()))
        self.here.take(self.here.clerk.asked(number, request, self.here.now_s))
        answered = len(self.here.answers[number]) - before
        assert answered == (0 if self.here.clerk.waiting(number) else 1)

    @precondition(lambda self: self.here.waiting)
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        """One GPU finishes its oldest job; each GPU does its own in turn."""
        oldest = {job.uuid: job for job in reversed(self.here.waiting)}
        job = oldest[data.draw(st.sampled_from(sorted(oldest)))]
        self.here.waiting.remove(job)
        if job.work is Work.APPLY:
            self.set_[job.uuid] = True
        if job.work is Work.RESTORE and not fails:
            self.set_[job.uuid] = False
        failure = DeviceError("it refused") if fails else None
        bounds = BOUNDS if job.work is Work.INSPECT and not fails else None
        self.here.take(self.here.clerk.done(Outcome(job, bounds, failure), self.here.now_s))

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 1.5, 5.0]))
    def wait(self, seconds: float) -> None:
        self.here.pass_time(seconds)

    @rule()
    def stop(self) -> None:
        self.here.take(self.here.clerk.stop())
        self.stopped = True

    @invariant()
    def every_changed_gpu_is_held_or_on_its_way_back(self) -> None:
        clerk = self.here.clerk
        for uuid, changed in self.set_.items():
            if changed and clerk.holder(uuid) is None:
                assert not clerk.all_restored
                due = any(job.uuid == uuid and job.work is Work.RESTORE for job in self.here.waiting)
                assert due or clerk.next_s <= self.here.now_s + RESTORE_AGAIN_S

    @invariant()
    def nobody_who_is_gone_holds_anything(self) -> None:
        for uuid in self.uuids:
            assert self.here.clerk.holder(uuid) in {None, *self.open}
            assert not (self.stopped and self.here.clerk.holder(uuid) in self.open)

    @invariant()
    def a_held_gpu_is_given_back_when_its_holder_falls_silent(self) -> None:
        clerk = self.here.clerk
        for uuid in self.uuids:
            holder = clerk.holder(uuid)
            if holder is not None and not clerk.waiting(holder):
                assert clerk.next_s <= self.here.now_s + LEASE_S

    def teardown(self) -> None:
        """Whatever happened: once the GPUs obey and the clients are gone, everything is given back."""
        for number in sorted(self.open):
            self.here.take(self.here.clerk.closed(number))
        while self.here.waiting:
            self.finish_well()
        while self.here.clerk.next_s < math.inf:
            self.here.pass_time(self.here.clerk.next_s - self.here.now_s)
            while self.here.waiting:
                self.finish_well()
        assert self.here.clerk.all_restored
        assert not any(self.set_.values())

    def finish_well(self) -> None:
        job = self.here.waiting.pop(0)
        self.set_[job.uuid] = job.work is Work.APPLY or (self.set_[job.uuid] and job.work is not Work.RESTORE)
        bounds = BOUNDS if job.work is Work.INSPECT else None
        self.here.take(self.here.clerk.done(Outcome(job, bounds, None), self.here.now_s))


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestHistories = Histories.TestCase
