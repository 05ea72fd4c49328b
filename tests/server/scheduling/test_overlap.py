"""Batches that overlap: the engine's thread begins the next one before it waits for the one before."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

import numpy as np
import pytest
from answering import answered

from server.engines.engine import Array, TensorSpec
from server.engines.padding import padded
from server.errors import EngineError, Internal, RequestError
from server.scheduling.scheduler import Scheduler, SchedulerSettings

SPEC = TensorSpec("x", "FP32", (2,))


class TwoHalves:
    """Doubles. A batch is done once it may finish; what it took is read then, as a GPU's upload would."""

    inputs = outputs = (SPEC,)
    max_batch = 4
    served_batches: tuple[int, ...] = ()
    padded_images = 0
    platform = "test"
    simulated = reads_foreign_memory = any_thread = False
    overlaps = True

    def __init__(self) -> None:
        self.lanes = deque(np.zeros((4, 2), np.float32) for _ in range(2))
        self.begun: deque[tuple[Array, int]] = deque()
        self.log: list[str] = []
        self.may_finish = threading.Event()
        self.two = threading.Event()
        self.bad_begin: set[int] = set()
        self.bad_finish: set[int] = set()
        self.count = 0
        self.closed = threading.Event()

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        return (self.lanes[0],)

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)

    def begin(self, inputs: tuple[Array, ...]) -> None:
        self.count += 1
        if self.count in self.bad_begin:
            raise EngineError(f"bad begin {self.count}")
        self.log.append("begin")
        self.begun.append((self.lanes.popleft(), len(inputs[0])))
        if len(self.begun) == 2:
            self.two.set()

    def finish(self) -> tuple[Array, ...]:
        assert self.may_finish.wait(30)
        lane, rows = self.begun.popleft()
        self.lanes.appendleft(lane)
        self.log.append("finish")
        if self.count - len(self.begun) in self.bad_finish:
            raise EngineError("bad finish")
        return (lane[:rows] * 2,)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        raise AssertionError("it is begun and finished")

    def close(self) -> None:
        assert not self.begun
        self.closed.set()


def rows(value: float, images: int) -> tuple[Array, ...]:
    return (np.full((images, 2), value, np.float32),)


async def ask(scheduler: Scheduler, value: float, images: int) -> Array:
    answer = await answered(scheduler, rows(value, images), images, nbytes=8 * images)
    return answer.outputs[0]


async def ended(scheduler: Scheduler) -> None:
    scheduler.close()
    await scheduler.wait_closed()


@pytest.fixture
def engine() -> TwoHalves:
    return TwoHalves()


async def test_the_next_batch_begins_before_the_first_one_ends(engine: TwoHalves) -> None:
    scheduler = Scheduler(engine, SchedulerSettings(batch_limit=4))
    scheduler.start()
    calls = [asyncio.create_task(ask(scheduler, float(n), 4)) for n in range(1, 9)]
    assert await asyncio.to_thread(engine.two.wait, 30)
    assert engine.log == ["begin", "begin"]
    engine.may_finish.set()
    for n, answer in enumerate(await asyncio.gather(*calls), 1):
        assert np.array_equal(answer, np.full((4, 2), 2.0 * n))
    assert engine.log.count("begin") == engine.log.count("finish") == 8
    await ended(scheduler)
    assert engine.closed.is_set()


async def test_many_requests_keep_their_answers(engine: TwoHalves) -> None:
    engine.may_finish.set()
    scheduler = Scheduler(engine, SchedulerSettings(batch_limit=4))
    scheduler.start()
    sizes = [1 + n % 6 for n in range(200)]
    answers = await asyncio.gather(*(ask(scheduler, float(n), size) for n, size in enumerate(sizes)))
    for n, (answer, size) in enumerate(zip(answers, sizes, strict=True)):
        assert np.array_equal(answer, np.full((size, 2), 2.0 * n))
    await ended(scheduler)


@pytest.mark.parametrize("half", ["bad_begin", "bad_finish"])
async def test_only_the_batch_that_fails_fails(engine: TwoHalves, half: str) -> None:
    getattr(engine, half).add(2)
    scheduler = Scheduler(engine, SchedulerSettings(batch_limit=4))
    scheduler.start()
    calls = [asyncio.create_task(ask(scheduler, float(n), 4)) for n in range(1, 6)]
    await asyncio.sleep(0)
    engine.may_finish.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failed = [n for n, answer in enumerate(answers, 1) if isinstance(answer, Internal)]
    assert failed == [2]
    assert all(np.array_equal(a, np.full((4, 2), 2.0 * n)) for n, a in enumerate(answers, 1) if n != 2)
    await ended(scheduler)


async def test_closing_finishes_what_is_under_way(engine: TwoHalves) -> None:
    scheduler = Scheduler(engine, SchedulerSettings(batch_limit=4))
    scheduler.start()
    calls = [asyncio.create_task(ask(scheduler, float(n), 4)) for n in range(2)]
    assert await asyncio.to_thread(engine.two.wait, 30)
    scheduler.close()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, RequestError) for answer in answers)
    assert not engine.closed.is_set()
    engine.may_finish.set()
    await scheduler.wait_closed()
    assert engine.log == ["begin", "begin", "finish", "finish"]
    assert engine.closed.is_set()


async def test_padding_overlaps_too(engine: TwoHalves) -> None:
    engine.served_batches = (1, 4)
    engine.may_finish.set()
    filled = padded(engine)
    scheduler = Scheduler(filled, SchedulerSettings(batch_limit=4))
    scheduler.start()
    answers = await asyncio.gather(*(ask(scheduler, float(n), 3) for n in range(20)))
    assert all(np.array_equal(a, np.full((3, 2), 2.0 * n)) for n, a in enumerate(answers))
    assert filled.padded_images > 0
    await ended(scheduler)
