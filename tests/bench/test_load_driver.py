from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import pytest

from bench.load.driver import Driver
from bench.load.measuring import DROPPED, UNANSWERED, Recorder
from bench.load.payloads import Payloads

FOREVER_S = 1e9


class Server:
    """Answers when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, float | None]] = []
        self.open = asyncio.Event()
        self.failures: Iterator[Exception | None] = iter(())

    async def __call__(self, message: bytes, timeout_s: float | None) -> bytes:
        self.sent.append((message, timeout_s))
        await self.open.wait()
        failure = next(self.failures, None)
        if failure is not None:
            raise failure
        return b""


class Immediately:
    """A pacer for which every time has come."""

    async def until(self, when_s: float) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        pass


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


def make(
    server: Server, *, open_loop: bool = True, timeout_s: float | None = None
) -> tuple[Driver, Recorder]:
    recorder = Recorder(-FOREVER_S, FOREVER_S, open_loop, slo_s=FOREVER_S)
    payloads = Payloads({1: (b"one", b"other"), 2: (b"two",)})
    return Driver(server, payloads, recorder, timeout_s), recorder


async def settle() -> None:
    """Let everything run that is not waiting for the server."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_stalled_server_is_charged_from_the_time_each_request_was_due() -> None:
    server = Server()
    driver, recorder = make(server)
    now_s = time.monotonic()
    server.open.set()

    # The generator comes to these late, as after a stall: latency still counts from when they were due.
    await driver.open([(now_s - 3.0, 1), (now_s - 2.0, 1), (now_s - 1.0, 2)], Immediately(), 10)

    result = recorder.result(0.0, 10, interrupted=False)
    assert [int(latency_s) for latency_s in sorted(result.latency_s)] == [1, 2, 3]
    assert [int(lag_s) for lag_s in sorted(result.lag_s)] == [1, 2, 3]
    assert result.images == 4


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    server = Server()
    driver, recorder = make(server)
    task = asyncio.create_task(driver.open([(0.0, 1)] * 5, Immediately(), 10))

    await settle()
    assert len(server.sent) == 5  # although none was answered
    server.open.set()
    await task

    assert recorder.answered == 5


async def test_beyond_the_bound_requests_are_dropped_and_counted() -> None:
    server = Server()
    driver, recorder = make(server)
    task = asyncio.create_task(driver.open([(0.0, 2)] * 5, Immediately(), 3))

    await settle()
    assert recorder.failed == 2
    server.open.set()
    await task

    dropped = recorder.result(0.0, 3, interrupted=False).failures[DROPPED]
    assert (dropped.requests, dropped.images, recorder.answered) == (2, 4, 3)
    assert len(server.sent) == 3


async def test_a_closed_loop_keeps_its_number_under_way() -> None:
    server = Server()
    driver, recorder = make(server, open_loop=False)
    task = asyncio.create_task(driver.closed(4, 1))

    await settle()
    assert len(server.sent) == 4

    recorder.end_s = 0.0  # the window is over: nobody sends again
    server.open.set()
    await task
    assert len(server.sent) == 4


async def test_different_requests_take_turns() -> None:
    server = Server()
    driver, _ = make(server)
    server.open.set()

    await driver.open([(0.0, 1)] * 4, Immediately(), 10)

    assert [message for message, _ in server.sent] == [b"one", b"other", b"one", b"other"]


async def test_a_deadline_counts_from_the_time_the_request_was_due() -> None:
    server = Server()
    driver, _ = make(server, timeout_s=10.0)
    server.open.set()
    now_s = time.monotonic()

    await driver.open([(now_s - 9.0, 1), (now_s - 60.0, 1)], Immediately(), 10)

    some, none_left = (timeout_s for _, timeout_s in server.sent)
    assert 0.0 < some <= 1.0
    assert none_left == 0.001


async def test_without_a_deadline_there_is_no_timeout() -> None:
    server = Server()
    driver, _ = make(server)
    server.open.set()

    await driver.open([(0.0, 1)], Immediately(), 10)

    assert server.sent == [(b"one", None)]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (rpc_error(grpc.StatusCode.UNAVAILABLE, "queue is full"), "UNAVAILABLE", "queue is full"),
        (RuntimeError("broken"), "RuntimeError", "broken"),
    ],
)
async def test_failures_are_counted_and_the_run_goes_on(error: Exception, code: str, message: str) -> None:
    server = Server()
    server.failures = iter([error])
    driver, recorder = make(server)
    server.open.set()

    await driver.open([(0.0, 1)] * 2, Immediately(), 10)

    failures = recorder.result(0.0, 1, interrupted=False).failures
    assert (failures[code].requests, failures[code].message) == (1, message)
    assert recorder.answered == 1


async def test_giving_up_counts_what_is_under_way_as_unanswered() -> None:
    server = Server()
    driver, recorder = make(server)
    task = asyncio.create_task(driver.open([(0.0, 1)] * 3, Immediately(), 10))
    await settle()
    assert len(server.sent) == 3

    await driver.give_up()
    await asyncio.gather(task, return_exceptions=True)

    assert recorder.result(0.0, 1, interrupted=False).failures[UNANSWERED].requests == 3


async def test_an_open_loop_that_is_ended_early_sends_no_more() -> None:
    server = Server()
    driver, recorder = make(server)
    server.open.set()
    recorder.end_s = 5.0

    await driver.open([(4.0, 1), (6.0, 1), (7.0, 1)], Immediately(), 10)

    assert len(server.sent) == 1
