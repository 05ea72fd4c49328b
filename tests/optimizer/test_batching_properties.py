"""Any interleaving of offers, cancellations, steps, changed limits and clock jumps, against a plain model."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from optimizer.batching import PRIORITY_LEVELS, Batch, BatchQueue, QueueLimits, Refusal, Request

SOON_S = 1e-6


@dataclass(frozen=True)
class ServiceTime:
    fixed_s: float
    each_s: float

    def __call__(self, images: int) -> float:
        return self.fixed_s + self.each_s * images


class Account:
    """What the model knows of one accepted request."""

    def __init__(self, request: Request[int], number: int) -> None:
        self.request = request
        self.number = number
        self.handed_out = 0
        self.left = False  # by cancellation, expiry or clearing

    @property
    def level(self) -> int:
        return min(max(self.request.priority, 0), PRIORITY_LEVELS - 1)

    @property
    def rest(self) -> int:
        return 0 if self.left else self.request.images - self.handed_out


class BatchQueueMachine(RuleBasedStateMachine):
    @initialize(
        max_images=st.integers(4, 40),
        max_bytes=st.integers(50, 400),
        batch_limit=st.integers(1, 9),
        delay_s=st.sampled_from([0.0, 0.01, 0.3]),
        fixed_s=st.sampled_from([0.0, 0.02]),
        each_s=st.sampled_from([0.0, 0.004]),
    )
    def build(
        self, max_images: int, max_bytes: int, batch_limit: int, delay_s: float, fixed_s: float, each_s: float
    ) -> None:
        self.limits = QueueLimits(max_images, max_bytes)
        self.queue = BatchQueue(self.limits, batch_limit, delay_s, ServiceTime(fixed_s, each_s))
        self.accounts: dict[Request[int], Account] = {}
        self.now_s = 1000.0
        self.draining = False

    def waiting(self) -> list[Account]:
        return sorted((a for a in self.accounts.values() if a.rest), key=lambda a: (a.level, a.number))

    @rule(
        images=st.integers(1, 25),
        nbytes=st.integers(0, 120),
        time_left_s=st.none() | st.floats(-0.1, 1.0),
        priority=st.sampled_from([0, 0, 0, 1, 2, -1, 99]),
    )
    def offer(self, images: int, nbytes: int, time_left_s: float | None, priority: int) -> None:
        deadline_s = None if time_left_s is None else self.now_s + time_left_s
        request = Request(len(self.accounts), images, nbytes, self.now_s, deadline_s, priority)
        expected = self.expected_refusal(request)
        refusal = self.queue.offer(request, self.now_s)
        if refusal is Refusal.DEADLINE:
            assert deadline_s is not None
            assert expected is None
        else:
            assert refusal is expected
        if refusal is None:
            assert deadline_s is None or deadline_s > self.now_s
            self.accounts[request] = Account(request, len(self.accounts))

    def expected_refusal(self, request: Request[int]) -> Refusal | None:
        images = sum(account.rest for account in self.waiting())
        nbytes = sum(account.request.nbytes for account in self.waiting())
        if self.draining:
            return Refusal.DRAINING
        if request.images > self.limits.max_images or request.nbytes > self.limits.max_bytes:
            return Refusal.TOO_LARGE
        full = (
            images + request.images > self.limits.max_images
            or nbytes + request.nbytes > self.limits.max_bytes
        )
        return Refusal.QUEUE_FULL if full else None

    @precondition(lambda self: self.accounts)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from(list(self.accounts.values())))
        assert self.queue.cancel(account.request) == bool(account.rest)
        account.left = True

    @rule(engine_idle=st.booleans(), most=st.none() | st.integers(1, 9))
    def step(self, engine_idle: bool, most: int | None) -> None:
        step = self.queue.step(self.now_s, engine_idle=engine_idle, most_images=most)
        for request in step.expired:
            self.leave(request)
        if step.batch is not None:
            self.take(step.batch, engine_idle, self.cap(most))
        elif engine_idle:
            assert not self.waiting() or (self.queue.max_delay_s > 0 and not self.draining)
        if step.batch is None:
            self.check_wake(step.wake_s, engine_idle)

    def leave(self, request: Request[int]) -> None:
        account = self.accounts[request]
        assert account.rest, "answered or expired before"
        assert request.deadline_s is not None
        account.left = True

    def cap(self, most: int | None) -> int:
        """What a batch may hold now: a request that fits into a batch is not split for who wants fewer."""
        limit = self.queue.batch_limit
        few, first = min(most or limit, limit), self.waiting()[0].rest
        return few if first <= few or first > limit else limit

    def take(self, batch: Batch[int], engine_idle: bool, cap: int) -> None:
        in_line = self.waiting()
        total = sum(account.rest for account in in_line)
        assert 1 <= batch.images == sum(piece.images for piece in batch.slices) <= cap
        expected = [account.request for account in in_line[: len(batch.slices)]]
        assert [piece.request for piece in batch.slices] == expected
        for piece, account in zip(batch.slices, in_line, strict=False):
            assert piece.start == account.handed_out
            assert 1 <= piece.images <= account.rest
            fits_one_batch = account.rest <= self.queue.batch_limit
            account.handed_out += piece.images
            assert account.rest == 0 or not fits_one_batch
        room = cap - batch.images
        next_rest = [account.rest for account in self.waiting()[:1]]
        could_grow = any(rest <= room or rest > self.queue.batch_limit for rest in next_rest)
        assert not (room and could_grow)
        assert engine_idle or self.draining or total >= self.queue.batch_limit

    def check_wake(self, wake_s: float | None, engine_idle: bool) -> None:
        """Before the time to wake nothing happens, at that time something does; without one, nothing ever."""
        early_s = self.now_s + 1e6 if wake_s is None else wake_s - SOON_S
        if early_s >= self.now_s:
            early = copy.deepcopy(self.queue).step(early_s, engine_idle=engine_idle)
            assert (early.batch, early.expired) == (None, ())
        if wake_s is not None:
            assert wake_s > self.now_s
            step = copy.deepcopy(self.queue).step(wake_s, engine_idle=engine_idle)
            assert step.batch is not None or step.expired

    @rule()
    def expire(self) -> None:
        for request in self.queue.expire(self.now_s).expired:
            self.leave(request)

    @rule(seconds=st.sampled_from([0.0001, 0.01, 0.1, 1.0]) | st.floats(0.0, 2.0))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(seconds=st.floats(0.0, 5000.0))
    def jump_back(self, seconds: float) -> None:
        self.now_s -= seconds

    @rule(batch_limit=st.integers(1, 12))
    def change_batch_limit(self, batch_limit: int) -> None:
        self.queue.batch_limit = batch_limit

    @rule(delay_s=st.sampled_from([0.0, 0.001, 0.2]))
    def change_delay(self, delay_s: float) -> None:
        self.queue.max_delay_s = delay_s

    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == tuple(account.request for account in self.waiting())
        for account in self.accounts.values():
            account.left = True

    @rule()
    def drain(self) -> None:
        self.queue.drain()
        self.draining = True

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        waiting = self.waiting()
        assert len(self.queue) == len(waiting)
        assert self.queue.queued_images == sum(account.rest for account in waiting) <= self.limits.max_images
        assert self.queue.queued_bytes == sum(a.request.nbytes for a in waiting) <= self.limits.max_bytes

    def teardown(self) -> None:
        """An idle engine that asks whenever it is told to gets everything, in finitely many steps."""
        if not hasattr(self, "queue"):
            return
        for _ in range(10_000):
            step = self.queue.step(self.now_s, engine_idle=True)
            for request in step.expired:
                self.leave(request)
            if step.batch is not None:
                self.take(step.batch, engine_idle=True, cap=self.cap(None))
            elif step.wake_s is None:
                break
            else:
                self.now_s = step.wake_s
        assert not self.waiting()
        assert len(self.queue) == 0


BatchQueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBatchQueue = BatchQueueMachine.TestCase
