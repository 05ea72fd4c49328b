"""One generator process from the first connection to its result."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import grpc

from bench.load.arrivals import arrivals_of, sizes_of
from bench.load.driver import Call, Driver
from bench.load.measuring import Recorder, WorkerResult
from bench.load.pacing import make_pacer
from bench.load.payloads import Payloads, SharedRequests, make_requests, wire_messages
from bench.load.plan import IN_FLIGHT_BYTES, Closed, LoadPlan, share_of
from server.client.client import OipClient, RemoteModel
from server.client.endpoint import UNLIMITED, Endpoint, explain
from server.errors import ConfigError

INFER = "/inference.GRPCInferenceService/ModelInfer"
PROBE_TIMEOUT_S = 60.0
TICK_S = 0.25

# Answers to the first request that no later request would change.
HOPELESS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a process needs before it starts: its requests, and how many images each may carry."""

    payloads: Payloads
    most_images: int


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is told.

    Args:
        begin: called when everything is prepared; returns the monotonic time at which to start.
        stop: set to end early.
        tick: told now and then how many requests were answered and how many failed so far.
    """

    begin: Callable[[], Awaitable[float]]
    stop: asyncio.Event
    tick: Callable[[int, int], None]


async def run_worker(plan: LoadPlan, index: int, orders: Orders) -> WorkerResult:
    """Prepare, wait for the start, send, wait for the last answers.

    Raises:
        ServerUnreachable, ServerRefused: the first request shows that no other will succeed.
        ConfigError: the plan does not fit the model.
    """
    with ExitStack() as stack:
        prepared = await asyncio.to_thread(_prepare, plan, index, stack)
        async with _connected(plan.endpoint) as call:
            await _probe(plan, call, prepared)
            return await _measure(plan, index, call, prepared, orders)


def _prepare(plan: LoadPlan, index: int, stack: ExitStack) -> Prepared:
    client = stack.enter_context(OipClient(plan.endpoint))
    model = client.model(plan.model)
    most = _most_images(plan, model)
    requests = make_requests(model, sizes_of(plan, most), plan.pictures, plan.seed + index)
    if not plan.shared_memory:
        return Prepared(Payloads(wire_messages(model.name, requests)), most)
    shared = SharedRequests(f"boulton_load_{os.getpid()}_{index}", requests)
    stack.callback(shared.close)
    stack.enter_context(_registered(client, shared))
    return Prepared(Payloads(shared.messages(model.name)), most)


def _most_images(plan: LoadPlan, model: RemoteModel) -> int:
    """Images that one request may carry."""
    most = max(1, model.max_batch)
    if plan.batch is not None and plan.batch > most:
        raise ConfigError(f"--batch {plan.batch} is over what model '{model.name}' takes: {most}")
    return plan.batch or most


@contextmanager
def _registered(client: OipClient, shared: SharedRequests) -> Iterator[None]:
    client.register_shared_memory(shared.region, shared.key, shared.byte_size)
    try:
        yield
    finally:
        client.unregister_shared_memory(shared.region)


@asynccontextmanager
async def _connected(endpoint: Endpoint) -> AsyncIterator[Call]:
    credentials, metadata = endpoint.credentials, endpoint.metadata or None
    channel = (
        grpc.aio.insecure_channel(endpoint.target, options=UNLIMITED)
        if credentials is None
        else grpc.aio.secure_channel(endpoint.target, credentials, options=UNLIMITED)
    )
    method = channel.unary_unary(INFER, None, None)

    def call(message: bytes, timeout_s: float | None) -> Awaitable[bytes]:
        return method(message, timeout=timeout_s, metadata=metadata)

    async with channel:
        yield call


async def _probe(plan: LoadPlan, call: Call, prepared: Prepared) -> None:
    """Send one request of the largest size: what is wrong with it is wrong with all."""
    try:
        await call(prepared.payloads.next(sizes_of(plan, prepared.most_images)[-1]), PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in HOPELESS:
            raise explain(error, plan.endpoint) from error


async def _measure(
    plan: LoadPlan, index: int, call: Call, prepared: Prepared, orders: Orders
) -> WorkerResult:
    begin_s = await orders.begin()
    start_s = begin_s + plan.warmup_s
    slo_s = float("inf") if plan.slo_ms is None else plan.slo_ms / 1e3
    recorder = Recorder(start_s, start_s + plan.duration_s, plan.open_loop, slo_s)
    driver = Driver(call, prepared.payloads, recorder, plan.timeout_s)
    in_flight = _in_flight(plan, index, prepared)
    sending = _sending(plan, index, driver, prepared, begin_s, in_flight)
    with _processor_time(start_s) as cpu_share:
        interrupted = await _finish(sending, driver, recorder, plan.drain_s, orders)
        return recorder.result(cpu_share(), in_flight, interrupted=interrupted)


async def _sending(
    plan: LoadPlan, index: int, driver: Driver, prepared: Prepared, begin_s: float, in_flight: int
) -> None:
    pacer = make_pacer()
    try:
        await pacer.until(begin_s)
        if isinstance(plan.arrivals, Closed):
            await driver.closed(in_flight, plan.batch or 1)
            return
        offsets = arrivals_of(plan, index, prepared.most_images)
        await driver.open(((begin_s + time_s, images) for time_s, images in offsets), pacer, in_flight)
    finally:
        pacer.close()


def _in_flight(plan: LoadPlan, index: int, prepared: Prepared) -> int:
    """Requests that this process may have under way; fewer when they are so large that copies fill memory."""
    if isinstance(plan.arrivals, Closed):
        return share_of(plan.arrivals.concurrency, plan.processes, index)
    affordable = IN_FLIGHT_BYTES // plan.processes // prepared.payloads.largest_bytes
    return max(1, min(share_of(plan.max_in_flight, plan.processes, index), affordable))


async def _finish(
    sending: Awaitable[None], driver: Driver, recorder: Recorder, drain_s: float, orders: Orders
) -> bool:
    """See the sending through: to its end, to an interruption, or to the end of patience."""
    task = asyncio.ensure_future(sending)
    interrupted = False
    while not task.done() and time.monotonic() < recorder.end_s + drain_s:
        await asyncio.wait({task}, timeout=TICK_S)
        orders.tick(recorder.answered, recorder.failed)
        if orders.stop.is_set() and not interrupted:
            interrupted = True
            recorder.end_s = min(recorder.end_s, time.monotonic())
    if not task.done():
        task.cancel()
        await driver.give_up()
    with suppress(asyncio.CancelledError):
        await task
    return interrupted


@contextmanager
def _processor_time(start_s: float) -> Iterator[Callable[[], float]]:
    """Give a function that returns the share of one core that this process used since `start_s`."""
    began: list[tuple[float, float]] = []
    delay_s = max(0.0, start_s - time.monotonic())
    handle = asyncio.get_running_loop().call_later(
        delay_s, lambda: began.append((time.monotonic(), time.process_time()))
    )

    def share() -> float:
        if not began:
            return 0.0
        wall_s = time.monotonic() - began[0][0]
        return (time.process_time() - began[0][1]) / max(wall_s, 1e-9)

    try:
        yield share
    finally:
        handle.cancel()
