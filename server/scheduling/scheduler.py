"""The asyncio shell around the batch queue and the engine thread.

The event loop owns the queue and everything about requests; the engine thread owns the engine. A batch goes
over by one put, an outcome comes back by one callback. While the engine runs, the queue fills; a batch that
is full already is staged behind the running one, so that a saturated engine never waits for the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from optimizer.batching import Batch, BatchQueue, QueueLimits, Refusal, Request
from optimizer.queue_alarm import QueueAlarm
from optimizer.surge import Tripwire
from optimizer.telemetry import SoFar, Traffic
from server.engines.engine import Array, Engine
from server.engines.overlapping import UNDER_WAY, overlapping
from server.errors import (
    CudaLost,
    DeadlineExceeded,
    Internal,
    RequestError,
    Unavailable,
    without_origin,
)
from server.scheduling.accounting import Accounts
from server.scheduling.batch_assembly import (
    Answer,
    Call,
    CallRequest,
    Targets,
    Timing,
    halves,
    split,
)
from server.scheduling.batch_run import Outcome, run_batch
from server.scheduling.engine_thread import EngineThread
from server.scheduling.failures import Failures
from server.scheduling.refusals import SHUTTING_DOWN, refusal_error
from server.scheduling.service_time import ServiceTimes
from server.scheduling.short_batches import ALL_IN_THREAD, Portion, ShortBatches
from server.scheduling.statistics import ModelStatistics, as_ns
from server.scheduling.wakeups import Wakeups
from server.wire.outside_memory import Tensor

__all__ = ["Answer", "Scheduler", "SchedulerSettings", "Timing"]

_LOG = logging.getLogger(__name__)

_STAGED = 1  # batches waiting behind what the engine has taken


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """How to batch and how much may wait. `batch_limit` is cut to what the engine can take.

    `on_lost` is told in the event loop when the GPU failed for good.
    """

    batch_limit: int
    max_delay_s: float = 0.0
    max_queue_images: int = 4096
    max_queue_bytes: int = 1 << 30
    on_lost: Callable[[CudaLost], None] = lambda _: None


class Scheduler:
    """Answers requests for one engine. Use from one event loop; owns the engine from `start` on.

    Args:
        engine: closed by `close`.
        settings: the start values; batch limit and delay may be changed while running.
        clock: seconds, monotonic; deadlines are absolute times on it.
    """

    def __init__(
        self, engine: Engine, settings: SchedulerSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._service_times = ServiceTimes()
        self._short = ShortBatches(self._service_times) if engine.any_thread else None
        self._on_lost = settings.on_lost
        self._most_in_flight = _STAGED + (1 if overlapping(engine) is None else UNDER_WAY)
        self._limits = QueueLimits(settings.max_queue_images, settings.max_queue_bytes)
        limit = self._legal_limit(settings.batch_limit)
        predict = self._service_times.predict
        self._queue: BatchQueue[Call] = BatchQueue(self._limits, limit, settings.max_delay_s, predict)
        self._in_flight: deque[Batch[Call]] = deque()
        self._finished: Outcome | None = None
        self._thread = EngineThread(engine, clock, self._post, self._post_closed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeups = Wakeups(self._pump)
        self._outstanding = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._failures = Failures()
        self._closed = False
        self._engine_closed = asyncio.Event()
        self._accounts = Accounts()
        self._alarm = QueueAlarm()

    def start(self) -> None:
        """Start the engine thread. Call inside the running event loop that will `submit` and `answer`."""
        self._loop = asyncio.get_running_loop()
        self._wakeups.start(self._loop)
        self._thread.start()

    @property
    def batch_limit(self) -> int:
        """Largest batch in images; a new value is cut to what the engine can take and holds at once."""
        return self._queue.batch_limit

    @batch_limit.setter
    def batch_limit(self, images: int) -> None:
        self._queue.batch_limit = self._legal_limit(images)
        self._wakeups.soon()

    @property
    def max_delay_s(self) -> float:
        """How long a batch may wait to grow while the engine is idle; a new value holds at once."""
        return self._queue.max_delay_s

    @max_delay_s.setter
    def max_delay_s(self, delay_s: float) -> None:
        self._queue.max_delay_s = delay_s
        self._wakeups.soon()

    @property
    def statistics(self) -> ModelStatistics:
        """Counters since the start; read them on the event loop."""
        return self._accounts.statistics

    @property
    def queued_images(self) -> int:
        """Images that wait for a batch now."""
        return self._queue.queued_images

    @property
    def queued_requests(self) -> int:
        """Requests that wait for a batch now, those waiting for their last images included."""
        return len(self._queue)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` once, on the event loop, as soon as the wire is tripped; None: never.

        What an idle engine takes at once does not wait. Replaces the watch before, and looks at once.
        """
        self._alarm.watch(wire, sound)
        self._look_for_surge()

    def take_traffic(self, slo_ms: float) -> Traffic:
        """Return what happened since the previous call; `late` counts images answered after `slo_ms`."""
        return self._accounts.take_traffic(slo_ms, self._queue.queued_images)

    def so_far(self) -> SoFar:
        """Return the last few batches that ran, and the images that came since traffic was taken."""
        return self._accounts.so_far()

    def submit(
        self,
        inputs: tuple[Tensor, ...],
        images: int,
        *,
        targets: Targets = (),
        nbytes: int,
        deadline_s: float | None = None,
        priority: int = 0,
    ) -> CallRequest:
        """Queue a request. Whoever calls this must `answer` or `withdraw` what it returns.

        An idle engine takes it at the end of this round of the event loop, with whatever else comes in it.

        Args:
            inputs: one `[images, *shape]` array per engine input, C-contiguous and of its dtype, over memory
                that stays unchanged until the answer; held until nothing reads it. Without a batch dimension
                the arrays have the inputs' own shapes, and `images` is 1. Rows in somebody else's memory that
                cannot be read when their batch is assembled fail this request alone.
            images: rows; may exceed the batch limit.
            targets: where on the GPU each output belongs, held likewise; None: the answer brings it;
                (): it brings all. Only for an engine that `exchanges`, as are inputs on the GPU.
            nbytes: memory to count while queued.
            deadline_s: time on the scheduler's clock after which an answer is worthless.
            priority: lower goes first; see `optimizer.batching`.

        Raises:
            Unavailable: the queue is full, or the model is shutting down.
            DeadlineExceeded: the deadline cannot be met.
            InvalidArgument: more than the queue could ever hold.
        """
        if self._loop is None:
            raise RuntimeError("start() the scheduler before a request")
        now_s = self._clock()
        call = Call(inputs, images, self._loop.create_future(), targets)
        request: CallRequest = Request(call, images, nbytes, now_s, deadline_s, priority)
        self._accounts.arrived(images)
        refusal = self._queue.offer(request, now_s)
        if refusal is not None:
            raise self._refused(request, refusal)
        self._outstanding += 1
        call.hold()
        self._quiet.clear()
        if len(self._in_flight) < self._most_in_flight or deadline_s is not None:
            self._wakeups.soon()
        self._alarm.arrived(images, now_s)
        self._look_for_surge()
        return request

    async def answer(self, request: CallRequest) -> Answer:
        """Wait for a submitted request. Cancelling the task withdraws it without harm to others.

        Raises:
            DeadlineExceeded: the deadline passed in the queue.
            Unavailable: the model is shutting down.
            Internal: the engine failed, or returned something else than announced.
        """
        try:
            return await request.payload.answer
        finally:
            if not request.payload.settled:
                self.withdraw(request)

    def withdraw(self, request: CallRequest) -> None:
        """Forget a submitted request that nobody waits for any more; nothing happens if it is settled."""
        call = request.payload
        if call.settled:
            _forget(call.answer)
            return
        self._queue.cancel(request)
        self._accounts.cancelled(request)
        self._settle(call)

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more and answer what is here. True when all was answered within `timeout_s`."""
        self._queue.drain()
        self._wakeups.soon()
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Fail whatever is unanswered and close the engine: now, or as soon as its running batch is done."""
        if self._closed:
            return
        self._closed = True
        self._queue.drain()
        if self._loop is None:
            self._engine.close()
            self._engine_closed.set()
            return
        self._wakeups.stop()
        self._abandon()
        self._thread.stop()
        if not self._in_flight:
            self._thread.join()

    async def wait_closed(self) -> None:
        """Wait until the engine has been closed; call `close` first."""
        await self._engine_closed.wait()

    # From the queue to the engine

    def _legal_limit(self, images: int) -> int:
        return min(images, max(1, self._engine.max_batch))

    def _pump(self) -> None:
        """Hand out batches while there is room for them."""
        handed_out = not self._closed
        while handed_out:
            handed_out = self._pump_one(self._clock())
        self._alarm.see(self._queue.queued_images)

    def _look_for_surge(self) -> None:
        if self._alarm.surging or not self._wakeups.due:  # what waits may go to the engine first
            self._alarm.see(self._queue.queued_images)

    def _pump_one(self, now_s: float) -> bool:
        idle = not self._in_flight
        room = len(self._in_flight) < self._most_in_flight
        few, here = self._portion(idle=idle) if room else ALL_IN_THREAD
        step = (
            self._queue.step(now_s, engine_idle=idle, most_images=few) if room else self._queue.expire(now_s)
        )
        for request in step.expired:
            self._expired(request, now_s)
        if step.batch is not None:
            apart = few is not None and step.batch.images <= few
            if self._short is not None:
                self._short.began(step.batch.images, now_s, apart=apart)
            return self._hand_over(step.batch, here=apart and here)
        if idle:
            self._paused(now_s, doubted=bool(step.expired))
        if step.wake_s is not None:
            self._wakeups.after(max(0.0, step.wake_s - now_s))
        return False

    def _paused(self, now_s: float, *, doubted: bool) -> None:
        if doubted:
            self._service_times.doubt()
        if self._short is not None:
            self._short.paused(now_s)

    def _portion(self, *, idle: bool) -> Portion:
        """How much of what waits is to be run next, and where: by the thread if behind a running batch."""
        waiting = min(self._queue.queued_images, self._queue.batch_limit)
        portion = self._short.portion(waiting) if self._short is not None and waiting else ALL_IN_THREAD
        return portion if idle or not portion.here else ALL_IN_THREAD

    def _hand_over(self, batch: Batch[Call], *, here: bool) -> bool:
        """Have a batch run, here or by the thread. True when there may be another one at once."""
        if here:
            self._run_here(batch)
            return False
        for piece in batch.slices:
            piece.request.payload.hold()  # also for whoever is cancelled meanwhile
        self._in_flight.append(batch)
        self._thread.submit(batch)
        return True

    def _run_here(self, batch: Batch[Call]) -> None:
        """Run a short batch in the event loop, which then has its turn before the next one."""
        self._hand_out()  # of a request that is in both batches, the first rows come first
        outcome = run_batch(self._engine, self._clock, batch)
        if self._queue.queued_images:
            self._wakeups.soon()
        else:
            self._paused(outcome.computed_s, doubted=False)
        self._learn(outcome)
        if outcome.outputs is not None:
            self._answer(outcome, outcome.outputs)

    # From the engine back to the requests

    def _post(self, outcome: Outcome) -> None:
        self._call_in_loop(lambda: self._finish(outcome))

    def _post_closed(self) -> None:
        self._call_in_loop(self._ended)

    def _ended(self) -> None:
        while self._in_flight:  # what was staged and never begun
            self._let_go(self._in_flight.popleft())
        self._engine_closed.set()

    def _let_go(self, batch: Batch[Call]) -> None:
        for piece in batch.slices:
            piece.request.payload.release()

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None, "the thread runs only after start()"  # noqa: S101
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            _LOG.debug("the event loop has ended: nobody waits for this any more")

    def _finish(self, outcome: Outcome) -> None:
        self._let_go(self._in_flight.popleft())
        if self._closed:
            return
        self._learn(outcome)
        self._finished = outcome
        self._pump()  # then the engine: answers are handed out while it runs
        self._hand_out()

    def _hand_out(self) -> None:
        """Hand out the answers of the batch that the thread has finished, unless that was done."""
        outcome, self._finished = self._finished, None
        if outcome is not None and outcome.outputs is not None:
            self._answer(outcome, outcome.outputs)

    def _learn(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._failed(outcome, outcome.error)  # before a pump: no more of a split request must run
        elif outcome.outputs is not None:
            self._service_times.observe(outcome.images, max(0.0, outcome.computed_s - outcome.started_s))

    def _answer(self, outcome: Outcome, outputs: tuple[Array, ...]) -> None:
        now_s = self._clock()
        output_ns = as_ns(now_s - outcome.computed_s)
        self._failures.end()
        self._accounts.executed(outcome, output_ns)
        times_ns = outcome.times_ns
        for piece, rows in zip(outcome.pieces, split(outputs, outcome.pieces), strict=True):
            request, call = piece.request, piece.request.payload
            queue_ns = as_ns(outcome.started_s - request.arrival_s)
            if call.unreadable is not None and not call.settled:
                self._failed_alone(request, call.unreadable, now_s)
            elif not call.settled and call.accept(rows, piece.images, queue_ns, times_ns):
                self._settle(call)
                answer = call.complete(output_ns)
                self._accounts.succeeded(request, answer.timing, now_s)
                if not call.answer.done():
                    call.answer.set_result(answer)

    # Requests that get no answer

    def _refused(self, request: CallRequest, refusal: Refusal) -> RequestError:
        self._accounts.refused(request)
        if refusal is Refusal.DEADLINE and not self._outstanding:
            self._service_times.doubt()
        return refusal_error(refusal, request, self._queue, self._limits, self._service_times)

    def _expired(self, request: CallRequest, now_s: float) -> None:
        self._accounts.expired(request, now_s)
        waited_ms = max(0.0, now_s - request.arrival_s) * 1e3
        message = f"the deadline passed, or could no longer be met, after {waited_ms:.1f} ms in the queue"
        self._fail(request, DeadlineExceeded(message))

    def _failed(self, outcome: Outcome, error: BaseException) -> None:
        if self._failures.may_run_again(error) and self._run_again(outcome):
            without_origin(error)
            return
        self._failed_for_good(outcome, error)

    def _run_again(self, outcome: Outcome) -> bool:
        """Run the halves of a batch that failed: whoever is not at fault is answered. False: it has none."""
        parts = halves(outcome.pieces)
        for pieces in parts:
            self._hand_over(Batch(pieces, sum(piece.images for piece in pieces)), here=False)
        return bool(parts)

    def _failed_for_good(self, outcome: Outcome, error: BaseException) -> None:
        now_s = self._clock()
        reason = self._failures.log(outcome.images, error, now_s)
        without_origin(error)
        for piece in outcome.pieces:
            if not piece.request.payload.settled:
                self._failed_alone(
                    piece.request, Internal(f"the model failed on this batch: {reason}"), now_s
                )
        if isinstance(error, CudaLost):
            self._on_lost(error)

    def _failed_alone(self, request: CallRequest, error: RequestError, now_s: float) -> None:
        self._queue.cancel(request)  # what has not run of it
        self._accounts.failed(request, now_s)
        self._fail(request, error)

    def _fail(self, request: CallRequest, error: RequestError) -> None:
        call = request.payload
        self._settle(call)
        if not call.answer.done():
            call.answer.set_exception(error)

    def _abandon(self) -> None:
        """Answer everybody who is queued or in flight: nobody is left waiting."""
        in_flight = [piece.request for batch in self._in_flight for piece in batch.slices]
        now_s = self._clock()
        for request in (*self._queue.clear(), *in_flight):
            if not request.payload.settled:
                self._accounts.failed(request, now_s)
                self._fail(request, Unavailable(SHUTTING_DOWN))

    def _settle(self, call: Call) -> None:
        call.settled = True
        call.release()
        self._outstanding -= 1
        if not self._outstanding:
            self._quiet.set()


def _forget(answer: asyncio.Future[Answer]) -> None:
    """Mark an error as seen, which asyncio would report as lost."""
    if answer.done() and not answer.cancelled():
        answer.exception()
