from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue

import numpy as np
import pytest
from answering import answered

from optimizer.surge import Tripwire
from optimizer.telemetry import BatchTimes, Traffic
from server.engines.engine import Array, TensorSpec
from server.errors import DeadlineExceeded, Internal, InvalidArgument, RequestError, Unavailable
from server.scheduling.scheduler import Answer, Scheduler, SchedulerSettings

PATIENCE_S = 30.0


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class ScriptedEngine:
    """Multiplies by ten. Can be held at the start of a batch, and told what to do with the next ones."""

    inputs = (TensorSpec("x", "INT64", (2,)),)
    outputs = (TensorSpec("tenfold", "FP64", (2,)), TensorSpec("sum", "INT64", ()))
    served_batches: tuple[int, ...] = ()
    padded_images = 0
    platform = "scripted"
    simulated = False

    def __init__(self, max_batch: int = 8, *, reads_foreign_memory: bool = True) -> None:
        self.max_batch = max_batch
        self.reads_foreign_memory = reads_foreign_memory
        self.any_thread = False
        rows = (max_batch,) if max_batch else ()
        self.input_buffers: tuple[Array, ...] = (np.zeros((*rows, 2), np.int64),)
        self.batches: list[list[int]] = []
        self.threads: list[threading.Thread] = []
        self.given: weakref.ref[Array] | None = None
        self.script: deque[Callable[[tuple[Array, ...]], tuple[Array, ...]]] = deque()
        self.held = False
        self.refused: int | None = None
        self.closed = threading.Event()
        self._started: SimpleQueue[int] = SimpleQueue()
        self._permits = threading.Semaphore(0)

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        rows = inputs[0].reshape(-1, 2)
        self.given = weakref.ref(inputs[0])
        self.batches.append(rows[:, 0].tolist())
        self.threads.append(threading.current_thread())
        self._started.put(len(rows))
        if self.held:
            assert self._permits.acquire(timeout=PATIENCE_S)
        if self.refused in rows[:, 0]:
            raise ValueError("no fives")
        outputs: tuple[Array, ...] = (inputs[0].astype(np.float64) * 10.0, inputs[0].sum(axis=-1))
        return self.script.popleft()(outputs) if self.script else outputs

    def close(self) -> None:
        self.closed.set()

    def wait_started(self) -> int:
        return self._started.get(timeout=PATIENCE_S)

    async def started(self) -> int:
        """Images of the next batch that has begun to run."""
        return await asyncio.to_thread(self.wait_started)

    def let_go(self) -> None:
        self.held = False
        self._permits.release(100)


def rows(*values: int) -> tuple[Array, ...]:
    return (np.array([[value, 1] for value in values], dtype=np.int64),)


class Bench:
    """A running scheduler over a scripted engine."""

    def __init__(self, engine: ScriptedEngine, scheduler: Scheduler) -> None:
        self.engine = engine
        self.scheduler = scheduler

    def ask(self, *values: int, deadline_s: float | None = None, priority: int = 0) -> asyncio.Task[Answer]:
        call = answered(
            self.scheduler,
            rows(*values),
            len(values),
            nbytes=16 * len(values),
            deadline_s=deadline_s,
            priority=priority,
        )
        return asyncio.get_running_loop().create_task(call)

    async def occupy(self) -> asyncio.Task[Answer]:
        """Keep the engine busy with one request of its own until it is let go."""
        self.engine.held = True
        task = self.ask(-1)
        await self.engine.started()
        return task

    async def queued(self, images: int) -> None:
        await until(lambda: self.scheduler.queued_images == images)

    async def staged(self) -> None:
        await until(lambda: len(self.scheduler._in_flight) == 2)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0)


Maker = Callable[..., Bench]


@pytest.fixture
async def make() -> AsyncIterator[Maker]:
    benches: list[Bench] = []

    def build(
        batch_limit: int = 8,
        max_delay_s: float = 0.0,
        *,
        engine: ScriptedEngine | None = None,
        clock: Callable[[], float] | None = None,
        **queue: int,
    ) -> Bench:
        engine = engine or ScriptedEngine()
        settings = SchedulerSettings(batch_limit, max_delay_s, **queue)
        scheduler = Scheduler(engine, settings) if clock is None else Scheduler(engine, settings, clock=clock)
        scheduler.start()
        benches.append(Bench(engine, scheduler))
        return benches[-1]

    yield build
    for bench in benches:
        bench.engine.let_go()
        bench.scheduler.close()
        async with asyncio.timeout(PATIENCE_S):
            await bench.scheduler.wait_closed()


def check_answer(answer: Answer, *values: int) -> None:
    tenfold, total = answer.outputs
    assert tenfold.tolist() == [[value * 10, 10] for value in values]
    assert total.tolist() == [value + 1 for value in values]


async def outcome(task: asyncio.Task[Answer]) -> Answer | RequestError | asyncio.CancelledError:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await task
    except (RequestError, asyncio.CancelledError) as error:
        return error


async def failure(task: asyncio.Task[Answer], kind: type[RequestError]) -> str:
    error = await outcome(task)
    assert isinstance(error, kind)
    return str(error)


class TestAnswers:
    async def test_a_request_gets_its_rows(self, make: Maker) -> None:
        answer = await make().ask(3, 4)
        check_answer(answer, 3, 4)
        assert (
            min(answer.timing.queue_ns, answer.timing.compute_infer_ns, answer.timing.compute_output_ns) >= 0
        )

    async def test_the_queue_fills_while_the_engine_is_busy(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        tasks = [bench.ask(value) for value in range(6)]
        await bench.queued(6)
        bench.engine.let_go()
        check_answer(await first, -1)
        for value, task in enumerate(tasks):
            check_answer(await task, value)
        assert bench.engine.batches == [[-1], [0, 1, 2, 3, 4, 5]]

    async def test_requests_that_arrive_together_ride_together(self, make: Maker) -> None:
        bench = make()
        await asyncio.gather(*[bench.ask(value) for value in range(5)])
        assert bench.engine.batches == [[0, 1, 2, 3, 4]]

    async def test_a_larger_request_is_split_and_put_together_again(self, make: Maker) -> None:
        bench = make(batch_limit=3)
        big, small = bench.ask(*range(10)), bench.ask(77)
        check_answer(await big, *range(10))
        check_answer(await small, 77)
        assert bench.engine.batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 77]]

    async def test_urgent_requests_go_first(self, make: Maker) -> None:
        bench = make(batch_limit=4)
        first = await bench.occupy()
        tasks = [bench.ask(value, priority=value) for value in (3, 1, 2)]
        await bench.queued(3)
        bench.engine.let_go()
        await asyncio.gather(first, *tasks)
        assert bench.engine.batches == [[-1], [1, 2, 3]]

    async def test_a_full_batch_is_staged_so_that_the_engine_never_waits_for_the_loop(
        self, make: Maker
    ) -> None:
        bench = make(batch_limit=2)
        first = await bench.occupy()
        tasks = [bench.ask(1), bench.ask(2)]
        await bench.staged()
        bench.engine.let_go()
        assert bench.engine.wait_started() == 2, "begun while this test kept the event loop from running"
        await asyncio.gather(first, *tasks)

    async def test_not_a_number_is_an_answer_like_any_other(self, make: Maker) -> None:
        bench = make()
        bench.engine.script.append(lambda outputs: (np.full((1, 2), np.nan), outputs[1]))
        assert np.isnan((await bench.ask(1)).outputs[0]).all()
        check_answer(await bench.ask(2), 2)


class TestMemory:
    async def test_a_request_alone_in_its_batch_is_not_copied(self, make: Maker) -> None:
        bench = make()
        inputs = rows(1, 2)
        await answered(bench.scheduler, inputs, 2, nbytes=32)
        assert bench.engine.given is not None
        assert bench.engine.given() is inputs[0]

    async def test_part_of_a_request_alone_in_its_batch_is_not_copied(self, make: Maker) -> None:
        bench = make(batch_limit=2)
        inputs = rows(1, 2, 3, 4)
        seen: list[bool] = []

        def look(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            given = bench.engine.given and bench.engine.given()
            seen.append(given is not None and np.shares_memory(given, inputs[0]))
            return outputs

        bench.engine.script.extend([look, look])
        await answered(bench.scheduler, inputs, 4, nbytes=64)
        assert seen == [True, True]

    async def test_an_engine_that_reads_only_its_own_buffers_gets_those(self, make: Maker) -> None:
        bench = make(engine=ScriptedEngine(reads_foreign_memory=False))
        check_answer(await bench.ask(5, 6), 5, 6)
        assert bench.engine.input_buffers[0][:2, 0].tolist() == [5, 6]

    async def test_memory_is_held_while_the_engine_reads_it_and_released_then(self, make: Maker) -> None:
        bench = make()
        bench.engine.held = True
        inputs = rows(1)
        borrowed = weakref.ref(inputs[0])
        task = asyncio.get_running_loop().create_task(answered(bench.scheduler, inputs, 1, nbytes=16))
        del inputs
        await bench.engine.started()
        task.cancel()
        assert isinstance(await outcome(task), asyncio.CancelledError)
        del task
        gc.collect()
        assert borrowed() is not None
        bench.engine.let_go()
        check_answer(await bench.ask(2), 2)
        gc.collect()
        assert borrowed() is None

    async def test_an_engine_without_batch_dimension_gets_one_request_at_a_time(self, make: Maker) -> None:
        bench = make(engine=ScriptedEngine(max_batch=0))
        assert bench.scheduler.batch_limit == 1
        requests = [(np.array([value, 1]),) for value in range(4)]
        answers = await asyncio.gather(*[answered(bench.scheduler, one, 1, nbytes=16) for one in requests])
        assert [answer.outputs[0].tolist() for answer in answers] == [[value * 10, 10] for value in range(4)]

    async def test_nor_is_that_request_given_to_an_engine_that_reads_only_its_own_buffers(
        self, make: Maker
    ) -> None:
        bench = make(engine=ScriptedEngine(max_batch=0, reads_foreign_memory=False))
        answer = await answered(bench.scheduler, (np.array([4, 1]),), 1, nbytes=16)
        assert answer.outputs[0].tolist() == [40, 10]
        assert bench.engine.input_buffers[0].tolist() == [4, 1]


class TestCancellation:
    async def test_one_of_many_while_queued(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        tasks = [bench.ask(value) for value in range(5)]
        await bench.queued(5)
        tasks[2].cancel()
        await bench.queued(4)
        bench.engine.let_go()
        results = [await outcome(task) for task in tasks]
        assert isinstance(results.pop(2), asyncio.CancelledError)
        for value, result in zip((0, 1, 3, 4), results, strict=True):
            assert isinstance(result, Answer)
            check_answer(result, value)
        await first
        assert bench.engine.batches == [[-1], [0, 1, 3, 4]]

    async def test_one_of_many_while_running(self, make: Maker) -> None:
        bench = make()
        bench.engine.held = True
        tasks = [bench.ask(value) for value in range(4)]
        await bench.engine.started()
        tasks[1].cancel()
        assert isinstance(await outcome(tasks.pop(1)), asyncio.CancelledError)
        bench.engine.let_go()
        for value, task in zip((0, 2, 3), tasks, strict=True):
            check_answer(await task, value)

    async def test_one_of_many_while_staged_costs_no_computation(self, make: Maker) -> None:
        bench = make(batch_limit=3)
        first = await bench.occupy()
        tasks = [bench.ask(value) for value in range(3)]
        await bench.staged()
        tasks[0].cancel()
        assert isinstance(await outcome(tasks[0]), asyncio.CancelledError)
        bench.engine.let_go()
        check_answer(await tasks[1], 1)
        check_answer(await tasks[2], 2)
        await first
        assert bench.engine.batches == [[-1], [1, 2]]

    async def test_all_while_queued(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        tasks = [bench.ask(value) for value in range(5)]
        await bench.queued(5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bench.engine.let_go()
        await first
        check_answer(await bench.ask(9), 9)
        assert bench.engine.batches == [[-1], [9]]

    async def test_all_while_running(self, make: Maker) -> None:
        bench = make()
        bench.engine.held = True
        tasks = [bench.ask(value) for value in range(5)]
        await bench.engine.started()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bench.engine.let_go()
        check_answer(await bench.ask(9), 9)
        assert bench.scheduler.statistics.success.count == 1

    async def test_all_while_staged_costs_no_batch(self, make: Maker) -> None:
        bench = make(batch_limit=2)
        first = await bench.occupy()
        tasks = [bench.ask(1), bench.ask(2)]
        await bench.staged()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bench.engine.let_go()
        await first
        check_answer(await bench.ask(9), 9)
        assert bench.engine.batches == [[-1], [9]]

    async def test_of_a_request_that_is_partly_computed(self, make: Maker) -> None:
        bench = make(batch_limit=2)
        bench.engine.held = True
        big = bench.ask(*range(20))
        await bench.engine.started()
        big.cancel()
        assert isinstance(await outcome(big), asyncio.CancelledError)
        assert bench.scheduler.queued_images == 0
        bench.engine.let_go()
        check_answer(await bench.ask(9), 9)
        assert bench.engine.batches == [[0, 1], [9]]


class Reset(BaseException):
    """Not even an Exception."""


class TestFailures:
    async def test_a_request_that_the_model_fails_on_fails_alone(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        bench.engine.refused = 5
        tasks = [bench.ask(value) for value in range(8)]
        await bench.queued(8)
        bench.engine.let_go()
        await first
        for value, task in enumerate(tasks):
            if value == 5:
                assert "no fives" in await failure(task, Internal)
            else:
                check_answer(await task, value)
        assert bench.scheduler.statistics.fail.count == 1
        assert bench.engine.batches[1:] == [
            *([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]),
            *([4, 5], [6, 7], [4], [5]),
        ]

    async def test_a_model_that_fails_on_everything_is_not_asked_again_for_ever(self, make: Maker) -> None:
        bench = make()

        def raise_it(_outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            raise ValueError("broken")

        bench.engine.script.extend([raise_it] * 1000)
        for _ in range(20):
            for task in [bench.ask(value) for value in range(8)]:
                await failure(task, Internal)
        assert 20 < len(bench.engine.batches) < 20 + 2 * 32
        bench.engine.script.clear()
        check_answer(await bench.ask(9), 9)

    async def test_tracebacks_do_not_fill_the_log(
        self, make: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = make()
        bench.engine.refused = 5
        for _ in range(3):
            await failure(bench.ask(5), Internal)
            check_answer(await bench.ask(1), 1)
        failures = [record for record in caplog.records if "images failed" in record.message]
        assert [record.exc_info is not None for record in failures] == [True, False, False]

    async def test_a_model_that_raises_fails_its_batch_alone(self, make: Maker) -> None:
        bench = make()

        def raise_it(_outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            raise ValueError("bad weather")

        bench.engine.script.extend([raise_it] * 5)
        for task in [bench.ask(value) for value in range(3)]:
            assert "ValueError: bad weather" in await failure(task, Internal)
        check_answer(await bench.ask(9), 9)
        assert bench.engine.batches == [[0, 1, 2], [0], [1, 2], [1], [2], [9]]

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Reset("x")])
    async def test_what_is_no_failure_of_the_model_is_not_tried_again(
        self, make: Maker, error: BaseException
    ) -> None:
        bench = make()

        def raise_it(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            raise error

        bench.engine.script.append(raise_it)
        for task in [bench.ask(value) for value in range(3)]:
            assert f"{type(error).__name__}: {error}" in await failure(task, Internal)
        check_answer(await bench.ask(9), 9)
        assert bench.engine.batches == [[0, 1, 2], [9]]

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            (
                lambda outputs: tuple(output[:-1] for output in outputs),
                r"shape \[0, 2\] instead of float64 of shape \[1, 2\]",
            ),
            (
                lambda outputs: (outputs[0], np.zeros(4, np.int64)),
                r"'sum' as int64 of shape \[4\] instead of",
            ),
            (lambda outputs: (outputs[0], np.zeros((), np.int64)), r"'sum' as int64 of shape \[\]"),
            (lambda outputs: (outputs[0], np.zeros(3, np.int32)), "'sum' as int32"),
            (lambda outputs: outputs[:1], "1 outputs instead of 2"),
            (lambda outputs: None, "TypeError"),
        ],
    )
    async def test_a_model_that_returns_the_wrong_count_fails_its_batch_alone(
        self, make: Maker, result: Callable[[tuple[Array, ...]], tuple[Array, ...]], words: str
    ) -> None:
        bench = make()
        bench.engine.script.extend([result] * 5)  # a batch, its halves, and theirs
        for task in [bench.ask(value) for value in range(3)]:
            with pytest.raises(Internal, match=words):
                await task
        check_answer(await bench.ask(9), 9)

    async def test_one_failed_part_fails_a_split_request_once_and_ends_it(self, make: Maker) -> None:
        bench = make(batch_limit=2)
        bench.engine.script.extend([lambda outputs: outputs, lambda outputs: outputs[:1]])
        big = bench.ask(*range(20))
        await failure(big, Internal)
        check_answer(await bench.ask(99), 99)
        assert len(bench.engine.batches) <= 4, "the rest of the request was computed for nothing"
        assert bench.scheduler.statistics.fail.count == 1
        assert bench.scheduler.take_traffic(1e9).failed == 20

    async def test_rows_of_the_wrong_dtype_fail_alone(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        odd = (np.zeros((1, 2), np.float32),)
        wrong = asyncio.create_task(answered(bench.scheduler, odd, 1, nbytes=8))
        mate = bench.ask(1)
        await bench.queued(2)
        bench.engine.let_go()
        await failure(wrong, Internal)
        check_answer(await mate, 1)
        await first
        check_answer(await bench.ask(9), 9)


class TestDeadlines:
    async def test_one_that_passes_in_the_queue_is_answered_while_the_engine_is_still_busy(
        self, make: Maker
    ) -> None:
        bench = make()
        first = await bench.occupy()
        now_s = asyncio.get_running_loop().time()
        urgent, patient = bench.ask(1, deadline_s=now_s + 0.05), bench.ask(2)
        assert "in the queue" in await failure(urgent, DeadlineExceeded)
        assert not first.done()
        bench.engine.let_go()
        await first
        check_answer(await patient, 2)
        assert bench.engine.batches == [[-1], [2]]

    async def test_one_that_passes_while_two_batches_are_in_flight(self, make: Maker) -> None:
        bench = make(batch_limit=1)
        first = await bench.occupy()
        staged = bench.ask(1)
        await bench.staged()
        urgent = bench.ask(2, deadline_s=asyncio.get_running_loop().time() + 0.05)
        await failure(urgent, DeadlineExceeded)
        assert not first.done()
        bench.engine.let_go()
        await asyncio.gather(first, staged)

    async def test_one_that_is_over_already_is_refused(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock)
        message = await failure(bench.ask(1, deadline_s=clock.now_s - 1.0), DeadlineExceeded)
        assert "had passed 1000.0 ms before" in message
        assert bench.engine.batches == []

    async def test_a_prediction_that_was_wrong_does_not_refuse_for_ever(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock)

        def warm_up(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            clock.now_s += 60.0
            return outputs

        bench.engine.script.append(warm_up)
        await bench.ask(1)
        results = [await outcome(bench.ask(2, deadline_s=clock.now_s + 1.0)) for _ in range(40)]
        assert isinstance(results[0], DeadlineExceeded)
        assert isinstance(results[-1], Answer)
        first_answer = next(i for i, result in enumerate(results) if isinstance(result, Answer))
        assert all(isinstance(result, Answer) for result in results[first_answer:])

    async def test_the_clock_goes_backwards(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock)
        first = await bench.occupy()
        before = [bench.ask(1), bench.ask(2, deadline_s=clock.now_s + 50.0)]
        await bench.queued(2)
        clock.now_s -= 900.0
        after = bench.ask(3, deadline_s=clock.now_s + 50.0)
        await bench.queued(3)
        bench.engine.let_go()
        for value, task in zip((-1, 1, 2, 3), (first, *before, after), strict=True):
            answer = await task
            check_answer(answer, value)
            assert answer.timing.queue_ns >= 0
        traffic = bench.scheduler.take_traffic(100.0)
        assert (traffic.completed, traffic.late) == (4, 0)


class TestLimits:
    async def test_a_full_queue_says_so(self, make: Maker) -> None:
        bench = make(max_queue_images=3)
        first = await bench.occupy()
        waiting = [bench.ask(1), bench.ask(2)]
        await bench.queued(2)
        message = await failure(bench.ask(3, 4), Unavailable)
        assert "queue is full: 2 images and 32 bytes wait, at most 3 images" in message
        bench.engine.let_go()
        await asyncio.gather(first, *waiting)

    async def test_bytes_are_bounded_too(self, make: Maker) -> None:
        bench = make(max_queue_bytes=40)
        first = await bench.occupy()
        waiting = bench.ask(1, 2)
        await bench.queued(2)
        assert "queue is full" in await failure(bench.ask(3), Unavailable)
        bench.engine.let_go()
        await asyncio.gather(first, waiting)

    async def test_what_never_fits_is_the_clients_fault(self, make: Maker) -> None:
        bench = make(max_queue_images=3)
        assert "4 images and 64 bytes" in await failure(bench.ask(1, 2, 3, 4), InvalidArgument)

    async def test_a_shorter_delay_holds_at_once(self, make: Maker) -> None:
        bench = make(max_delay_s=3600.0)
        task = bench.ask(1)
        await bench.queued(1)
        bench.scheduler.max_delay_s = 0.0
        check_answer(await task, 1)
        assert bench.scheduler.max_delay_s == 0.0

    async def test_a_smaller_batch_limit_holds_at_once(self, make: Maker) -> None:
        bench = make(max_delay_s=3600.0)
        tasks = [bench.ask(1), bench.ask(2), bench.ask(3), bench.ask(4)]
        await bench.queued(4)
        bench.scheduler.batch_limit = 2
        await asyncio.gather(*tasks)
        assert bench.engine.batches == [[1, 2], [3, 4]]

    async def test_a_delay_that_is_over_dispatches(self, make: Maker) -> None:
        bench = make(max_delay_s=0.01)
        check_answer(await bench.ask(1), 1)

    async def test_the_batch_limit_is_cut_to_what_the_engine_takes(self, make: Maker) -> None:
        bench = make(batch_limit=100, engine=ScriptedEngine(max_batch=8))
        assert bench.scheduler.batch_limit == 8
        bench.scheduler.batch_limit = 9
        assert bench.scheduler.batch_limit == 8
        with pytest.raises(ValueError, match="at least 1 image, got 0"):
            bench.scheduler.batch_limit = 0


class TestEnd:
    async def test_close_with_a_full_queue_leaves_nobody_waiting(self, make: Maker) -> None:
        bench = make(batch_limit=2, max_queue_images=10)
        running = await bench.occupy()
        queued = [bench.ask(value) for value in range(2)]
        await bench.staged()
        queued += [bench.ask(value) for value in range(10)]
        await bench.queued(10)
        bench.scheduler.close()
        for task in (running, *queued):
            assert "shutting down" in await failure(task, Unavailable)
        assert not bench.engine.closed.is_set(), "closed under a running batch"
        bench.engine.let_go()
        await bench.scheduler.wait_closed()
        assert bench.engine.closed.is_set()
        assert bench.engine.batches == [[-1]], "a batch was begun after close"

    async def test_close_of_an_idle_scheduler_closes_the_engine_before_it_returns(self, make: Maker) -> None:
        bench = make()
        await bench.ask(1)
        bench.scheduler.close()
        bench.scheduler.close()
        assert bench.engine.closed.is_set()
        assert "shutting down" in await failure(bench.ask(2), Unavailable)

    async def test_close_before_start_closes_the_engine(self) -> None:
        engine = ScriptedEngine()
        scheduler = Scheduler(engine, SchedulerSettings(4))
        with pytest.raises(RuntimeError, match="start"):
            await answered(scheduler, rows(1), 1, nbytes=16)
        scheduler.close()
        await scheduler.wait_closed()
        assert engine.closed.is_set()

    async def test_an_engine_that_cannot_be_closed_does_not_hang_anybody(self, make: Maker) -> None:
        bench = make()

        def fail() -> None:
            raise RuntimeError("stuck")

        bench.engine.close = fail  # type: ignore[method-assign]
        bench.scheduler.close()
        async with asyncio.timeout(PATIENCE_S):
            await bench.scheduler.wait_closed()

    async def test_drain_answers_what_is_here_and_refuses_the_new(self, make: Maker) -> None:
        bench = make(max_delay_s=3600.0)
        first = bench.ask(1)
        await bench.queued(1)
        drained = asyncio.create_task(bench.scheduler.drain(PATIENCE_S))
        check_answer(await first, 1)
        assert await drained
        assert "shutting down" in await failure(bench.ask(2), Unavailable)

    async def test_drain_gives_up_in_time(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        assert not await bench.scheduler.drain(0.01)
        bench.engine.let_go()
        check_answer(await first, -1)
        assert await bench.scheduler.drain(PATIENCE_S)

    def test_an_outcome_after_the_loop_has_ended_is_dropped(self) -> None:
        engine = ScriptedEngine()

        async def leave_running() -> Scheduler:
            scheduler = Scheduler(engine, SchedulerSettings(4))
            scheduler.start()
            engine.held = True
            task = asyncio.create_task(answered(scheduler, rows(1), 1, nbytes=16))
            await engine.started()
            task.cancel()
            scheduler.close()
            return scheduler

        asyncio.run(leave_running())
        engine.let_go()
        assert engine.closed.wait(PATIENCE_S)


class TestAccounts:
    async def test_statistics_are_exact(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock)

        def take_5_ms(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            clock.now_s += 0.005
            return outputs

        first = await bench.occupy()
        tasks = [bench.ask(1), bench.ask(2, 3)]
        await bench.queued(3)
        clock.now_s += 0.010
        bench.engine.script.extend([take_5_ms, take_5_ms])
        bench.engine.let_go()
        await asyncio.gather(first, *tasks)
        statistics = bench.scheduler.statistics
        ms = 1_000_000
        assert (statistics.inference_count, statistics.execution_count) == (4, 2)
        assert (statistics.success.count, statistics.fail.count) == (3, 0)
        assert statistics.success.ns == pytest.approx((15 + 20 + 20) * ms, rel=1e-6)
        assert statistics.queue.ns == pytest.approx((0 + 15 + 15) * ms, rel=1e-6)
        assert statistics.compute_infer.ns == pytest.approx((15 + 5 + 5) * ms, rel=1e-6)
        assert sorted(statistics.batch_stats) == [1, 3]
        assert statistics.batch_stats[1].compute_infer.count == 1
        assert statistics.batch_stats[3].compute_infer.ns == pytest.approx(5 * ms, rel=1e-6)
        assert statistics.last_inference_ms > 1_600_000_000_000

    async def test_traffic_is_exact(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock, max_queue_images=6)
        first = await bench.occupy()
        tasks = [bench.ask(1), bench.ask(2, 3), bench.ask(4), bench.ask(5, deadline_s=clock.now_s + 0.5)]
        await bench.queued(5)
        refused = bench.ask(6, 7, 8)
        await failure(refused, Unavailable)
        tasks[2].cancel()
        await bench.queued(4)
        clock.now_s += 1.0
        bench.engine.let_go()
        for task in (first, *tasks):
            await outcome(task)
        traffic = bench.scheduler.take_traffic(slo_ms=100.0)
        assert (traffic.arrived, traffic.completed, traffic.late) == (9, 4, 4)
        assert (traffic.refused, traffic.expired, traffic.cancelled, traffic.failed) == (3, 1, 1, 0)
        assert traffic.latency_p50_ms == pytest.approx(1000.0)
        assert {size: times.count for size, times in traffic.batches.items()} == {1: 1, 3: 1}
        assert bench.scheduler.take_traffic(slo_ms=100.0) == Traffic()

    async def test_traffic_tells_what_waits_now(self, make: Maker) -> None:
        bench = make()
        first = await bench.occupy()
        waiting = bench.ask(1, 2, 3)
        await bench.queued(3)
        assert bench.scheduler.take_traffic(1e9).queued == 3
        bench.engine.let_go()
        await asyncio.gather(first, waiting)
        traffic = bench.scheduler.take_traffic(1e9)
        assert (traffic.queued, traffic.completed, traffic.arrived) == (0, 4, 0)

    async def test_batch_times_are_the_engines(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(clock=clock)

        def take(seconds: float) -> Callable[[tuple[Array, ...]], tuple[Array, ...]]:
            def run(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
                clock.now_s += seconds
                return outputs

            return run

        for seconds in (0.25, 0.5):
            bench.engine.script.append(take(seconds))
            await bench.ask(1, 2)
        assert bench.scheduler.take_traffic(1e9).batches == {2: BatchTimes(2, 0.75)}

    @pytest.mark.parametrize("seed", range(5))
    async def test_whatever_happens_everybody_is_answered_once(self, make: Maker, seed: int) -> None:
        dice = random.Random(seed)
        bench = make(max_queue_images=60)

        def sometimes_fail(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            return outputs if dice.random() < 0.8 else outputs[:1]

        bench.engine.script.extend([sometimes_fail] * 10_000)
        results: list[Answer | RequestError | asyncio.CancelledError] = []

        async def client(number: int) -> None:
            for turn in range(20):
                values = [number * 1000 + turn * 10 + image for image in range(dice.choice((1, 1, 2, 5, 17)))]
                left_s = dice.choice((None, None, 0.0005, 0.005))
                deadline_s = None if left_s is None else asyncio.get_running_loop().time() + left_s
                task = bench.ask(*values, deadline_s=deadline_s, priority=dice.randrange(3))
                if dice.random() < 0.3:
                    asyncio.get_running_loop().call_later(dice.random() * 0.002, task.cancel)
                if dice.random() < 0.1:
                    bench.scheduler.batch_limit = dice.randint(1, 8)
                    bench.scheduler.max_delay_s = dice.choice((0.0, 0.001))
                results.append(await outcome(task))
                if isinstance(results[-1], Answer):
                    check_answer(results[-1], *values)

        await asyncio.gather(*[client(number) for number in range(12)])
        assert await bench.scheduler.drain(PATIENCE_S)
        traffic = bench.scheduler.take_traffic(1e9)
        fates = traffic.completed + traffic.refused + traffic.expired + traffic.cancelled + traffic.failed
        assert traffic.arrived == fates
        assert traffic.queued == 0
        assert len(results) == 12 * 20
        statistics = bench.scheduler.statistics
        answered = sum(isinstance(result, Answer) for result in results)
        withdrawn = sum(isinstance(result, asyncio.CancelledError) for result in results)
        failed = len(results) - answered - withdrawn
        # A task cancelled just as its answer was given counts as what it got.
        assert failed <= statistics.fail.count <= failed + withdrawn
        assert answered <= statistics.success.count <= answered + withdrawn


class TestShortBatches:
    """With a manual clock every batch takes no time at all: the shortest there is."""

    def engine(self) -> ScriptedEngine:
        engine = ScriptedEngine(max_batch=4)
        engine.any_thread = True
        return engine

    async def test_run_in_the_event_loop_once_known_to_be_short(self, make: Maker) -> None:
        bench = make(batch_limit=4, engine=self.engine(), clock=ManualClock())
        answers = [await bench.ask(value) for value in range(3)]
        assert [answer.outputs[0][0, 0] for answer in answers] == [0.0, 10.0, 20.0]
        here = threading.current_thread()
        assert [thread is here for thread in bench.engine.threads] == [False, True, True]

    async def test_long_ones_run_in_the_thread(self, make: Maker) -> None:
        clock = ManualClock()
        bench = make(batch_limit=4, engine=self.engine(), clock=clock)

        def take_time(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            clock.now_s += 0.001
            return outputs

        bench.engine.script.extend([take_time] * 3)
        for value in range(3):
            await bench.ask(value)
        assert threading.current_thread() not in bench.engine.threads

    async def test_an_engine_bound_to_its_thread_stays_there(self, make: Maker) -> None:
        bench = make(clock=ManualClock())
        for value in range(3):
            await bench.ask(value)
        assert threading.current_thread() not in bench.engine.threads

    def crowded_caches(self, make: Maker, few: int, few_s: float, many_s: float) -> Bench:
        """Images take so long each in batches of up to a few, and so long in larger ones."""
        clock = ManualClock()
        engine = ScriptedEngine(max_batch=8)
        engine.any_thread = True

        def take_time(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            clock.now_s += len(outputs[0]) * (few_s if len(outputs[0]) <= few else many_s)
            return outputs

        engine.script.extend([take_time] * 4000)
        return make(batch_limit=8, engine=engine, clock=clock)

    async def answer_crowds(self, bench: Bench) -> list[int]:
        """Ask for eight images at once, hundreds of times; return the sizes of the batches that ran."""
        for _ in range(400):
            crowd = [bench.ask(value) for value in range(8)]
            assert [(await task).outputs[0][0, 0] for task in crowd] == [10.0 * value for value in range(8)]
        return [len(batch) for batch in bench.engine.batches]

    async def test_a_crowd_that_is_cheaper_apart_runs_here_a_few_at_a_time(self, make: Maker) -> None:
        bench = self.crowded_caches(make, 5, 0.0001, 0.001)
        await bench.ask(0)
        sizes = await self.answer_crowds(bench)
        assert {3, 5, 8} <= set(sizes)  # each way was tried
        here = threading.current_thread()
        ran_here = [size for size, thread in zip(sizes, bench.engine.threads, strict=True) if thread is here]
        assert set(ran_here) == {3, 5}
        assert 0 < sizes.count(8) < sizes.count(5) // 3

    async def test_a_crowd_of_long_images_that_is_cheaper_apart_runs_in_the_thread_a_few_at_a_time(
        self, make: Maker
    ) -> None:
        bench = self.crowded_caches(make, 4, 0.004, 0.006)
        sizes = await self.answer_crowds(bench)
        assert set(sizes) == {4, 8}
        assert 0 < sizes.count(8) < sizes.count(4) // 3
        assert threading.current_thread() not in bench.engine.threads

    async def test_a_request_whose_first_rows_ran_in_the_thread_and_its_last_here_keeps_its_order(
        self, make: Maker
    ) -> None:
        bench = make(batch_limit=4, engine=self.engine(), clock=ManualClock())
        answer = await bench.ask(*range(11))
        assert answer.outputs[0][:, 0].tolist() == [10.0 * value for value in range(11)]
        here = threading.current_thread()
        assert [thread is here for thread in bench.engine.threads] == [False, False, True]

    async def test_a_large_request_and_a_crowd_are_answered_in_order(self, make: Maker) -> None:
        bench = make(batch_limit=4, engine=self.engine(), clock=ManualClock())
        for size in range(1, 5):
            await bench.ask(*range(size))
        large = bench.ask(*range(10))
        crowd = [bench.ask(value) for value in range(20, 30)]
        assert (await large).outputs[0][:, 0].tolist() == [10.0 * value for value in range(10)]
        assert [(await task).outputs[0][0, 0] for task in crowd] == [10.0 * value for value in range(20, 30)]
        assert max(len(batch) for batch in bench.engine.batches) == 4

    async def test_a_failure_fails_its_batch_and_the_next_is_answered(self, make: Maker) -> None:
        bench = make(batch_limit=4, engine=self.engine(), clock=ManualClock())
        await bench.ask(1)

        def fail(outputs: tuple[Array, ...]) -> tuple[Array, ...]:
            raise ValueError("broken")

        bench.engine.script.append(fail)
        assert "broken" in await failure(bench.ask(2), Internal)
        assert (await bench.ask(3)).outputs[0][0, 0] == 30.0

    async def test_drain_and_close_after_them(self, make: Maker) -> None:
        bench = make(batch_limit=4, engine=self.engine(), clock=ManualClock())
        await bench.ask(1)
        last = [bench.ask(value) for value in range(6)]
        await asyncio.sleep(0)
        assert await bench.scheduler.drain(PATIENCE_S)
        assert [(await task).outputs[0][0, 0] for task in last] == [10.0 * value for value in range(6)]
        bench.scheduler.close()
        await bench.scheduler.wait_closed()
        assert bench.engine.closed.is_set()


async def test_the_alarm_sounds_once_when_too_many_wait(make: Maker) -> None:
    served, heard = make(), []
    served.scheduler.watch(Tripwire(3), lambda: heard.append(served.scheduler.queued_images))
    await served.occupy()
    tasks = [served.ask(*range(8))]
    await served.staged()
    tasks += [served.ask(1, 2, 3)]
    await served.queued(3)
    assert heard == []
    tasks += [served.ask(4)]
    await served.queued(4)
    tasks += [served.ask(5)]
    await served.queued(5)
    assert heard == [4]
    served.engine.let_go()
    await asyncio.gather(*tasks)


async def test_what_an_idle_engine_takes_at_once_is_no_alarm(make: Maker) -> None:
    served, heard = make(), []
    served.scheduler.watch(Tripwire(3), lambda: heard.append("alarm"))
    await served.ask(*range(8))
    assert heard == []


async def test_the_rest_of_a_burst_on_an_idle_engine_is_an_alarm(make: Maker) -> None:
    served, heard = make(), []
    served.engine.held = True
    served.scheduler.watch(Tripwire(3), lambda: heard.append("alarm"))
    task = served.ask(*range(20))
    await until(lambda: heard == ["alarm"])
    assert served.scheduler.queued_images == 4
    served.engine.let_go()
    await task


async def test_a_new_watch_looks_at_once_and_an_ended_one_never(make: Maker) -> None:
    served, heard = make(), []
    await served.occupy()
    tasks = [served.ask(*range(8))]
    await served.staged()
    tasks += [served.ask(1, 2, 3)]
    await served.queued(3)
    served.scheduler.watch(None, lambda: heard.append("never"))
    served.scheduler.watch(Tripwire(3), lambda: heard.append("not yet"))
    assert heard == []
    served.scheduler.watch(Tripwire(2), lambda: heard.append("now"))
    assert heard == ["now"]
    served.engine.let_go()
    await asyncio.gather(*tasks)


async def test_arrivals_that_outrun_the_rate_sound_the_alarm_though_none_waits(make: Maker) -> None:
    served, heard = make(), []
    served.scheduler.watch(Tripwire(1000, 1e-3, 3.5), lambda: heard.append(served.scheduler.queued_images))
    for _ in range(3):
        await served.ask(1)
    assert heard == []
    await served.ask(1)
    await served.ask(1)
    assert len(heard) == 1
