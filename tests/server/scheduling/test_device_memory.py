"""Clients' memory on the GPU stays mapped exactly as long as something may read or write it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from server.engines.device_rows import NOTHING, DeviceRows, Exchange
from server.engines.engine import Array, TensorSpec
from server.errors import EngineError, Internal, RequestError, Unavailable
from server.scheduling.batch_assembly import CallRequest
from server.scheduling.scheduler import Scheduler, SchedulerSettings


class CountedMemory:
    address = 4096

    def __init__(self) -> None:
        self.holders = 0

    def hold(self) -> None:
        self.holders += 1

    def release(self) -> None:
        self.holders -= 1
        assert self.holders >= 0


class GatedEngine:
    """Waits for its gate in every batch, and records what it exchanged."""

    inputs = (TensorSpec("x", "FP32", (2,)),)
    outputs = (TensorSpec("y", "FP32", (2,)),)
    max_batch, served_batches, padded_images = 4, (), 0
    platform, simulated, reads_foreign_memory, any_thread = "gated", False, True, False
    exchanges = True

    def __init__(self) -> None:
        self.input_buffers = (np.zeros((4, 2), np.float32),)
        self.gate, self.running = threading.Event(), threading.Event()
        self.exchanged: list[Exchange] = []
        self.fails = False

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)

    def run(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> tuple[Array, ...]:
        self.exchanged.append(exchange)
        self.running.set()
        assert self.gate.wait(30)
        if self.fails:
            raise EngineError("a bad batch")
        return (inputs[0].copy(),)

    def close(self) -> None:
        pass


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def memory() -> CountedMemory:
    return CountedMemory()


@pytest.fixture
async def scheduler(engine: GatedEngine) -> Scheduler:
    scheduler = Scheduler(engine, SchedulerSettings(batch_limit=4, max_queue_images=8))
    scheduler.start()
    yield scheduler
    engine.gate.set()
    scheduler.close()
    await scheduler.wait_closed()


@pytest.fixture
def submit(scheduler: Scheduler, memory: CountedMemory) -> Callable[..., CallRequest]:
    def submit(images: int = 1, *, source: bool = True, target: bool = True) -> CallRequest:
        rows = DeviceRows(memory, 0, (images, 2), np.dtype("f4"))
        inputs = (rows if source else np.ones((images, 2), np.float32),)
        return scheduler.submit(inputs, images, targets=(rows,) if target else (), nbytes=8 * images)

    return submit


async def running(engine: GatedEngine) -> None:
    assert await asyncio.to_thread(engine.running.wait, 30)


async def until_free(memory: CountedMemory) -> None:
    async with asyncio.timeout(30):
        while memory.holders:  # noqa: ASYNC110  # nothing announces it but the count
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("source", "target"), [(True, True), (True, False), (False, True)])
async def test_it_is_held_from_the_queue_to_the_answer(
    scheduler: Scheduler,
    engine: GatedEngine,
    memory: CountedMemory,
    submit: Callable,
    source: bool,
    target: bool,
) -> None:
    request = submit(source=source, target=target)
    assert memory.holders == source + target
    await running(engine)
    assert memory.holders
    engine.gate.set()
    await scheduler.answer(request)
    assert memory.holders == 0
    assert (len(engine.exchanged[0].sources), len(engine.exchanged[0].targets)) == (source, target)


async def test_what_lies_on_the_host_exchanges_nothing(
    scheduler: Scheduler, engine: GatedEngine, submit: Callable
) -> None:
    engine.gate.set()
    await scheduler.answer(submit(source=False, target=False))
    assert engine.exchanged == [NOTHING]


async def test_who_is_cancelled_while_queued_lets_go_at_once(
    scheduler: Scheduler, engine: GatedEngine, memory: CountedMemory, submit: Callable
) -> None:
    first = submit(source=False, target=False)
    await running(engine)
    request = submit(4)
    submitted = submit(1)  # the batch of four is staged behind the one that runs; this one waits
    await asyncio.sleep(0)
    scheduler.withdraw(submitted)
    scheduler.withdraw(request)
    engine.gate.set()
    await scheduler.answer(first)
    await until_free(memory)


async def test_who_is_cancelled_while_computed_lets_go_after_the_batch(
    scheduler: Scheduler, engine: GatedEngine, memory: CountedMemory, submit: Callable
) -> None:
    request = submit()
    await running(engine)
    scheduler.withdraw(request)
    await asyncio.sleep(0.01)
    assert memory.holders  # the GPU may still write there
    engine.gate.set()
    await until_free(memory)


async def test_a_batch_that_fails_lets_go(
    scheduler: Scheduler, engine: GatedEngine, memory: CountedMemory, submit: Callable
) -> None:
    engine.fails = True
    engine.gate.set()
    with pytest.raises(Internal) as error:
        await scheduler.answer(submit())
    assert memory.holders == 0
    assert error.value.__traceback__ is not None  # though what was raised lives on, with all its frames


async def test_what_is_refused_was_never_held(
    scheduler: Scheduler, memory: CountedMemory, submit: Callable
) -> None:
    with pytest.raises(RequestError):
        submit(9)
    assert memory.holders == 0


async def test_a_split_request_lets_go_after_its_last_batch(
    scheduler: Scheduler, engine: GatedEngine, memory: CountedMemory, submit: Callable
) -> None:
    scheduler.batch_limit = 2
    request = submit(5)
    await running(engine)
    engine.gate.set()
    await scheduler.answer(request)
    await until_free(memory)
    placed = [(one.sources[0].rows.address, one.sources[0].rows.shape) for one in engine.exchanged]
    assert placed == [(4096, (2, 2)), (4112, (2, 2)), (4128, (1, 2))]


async def test_shutting_down_waits_for_the_batch_that_runs(
    scheduler: Scheduler, engine: GatedEngine, memory: CountedMemory, submit: Callable
) -> None:
    request, staged = submit(), submit(4)
    await running(engine)
    scheduler.close()
    for one in (request, staged):
        with pytest.raises(Unavailable):
            await scheduler.answer(one)
    assert memory.holders
    engine.gate.set()
    await scheduler.wait_closed()
    assert memory.holders == 0
