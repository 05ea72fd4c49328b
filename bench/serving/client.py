"""The client of every measurement: a closed loop of prepared messages over one channel, in calls or streams.

It parses no answer and builds no request while measuring, so that it takes as little of the machine as a gRPC
client in Python can.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import uvloop

from bench.serving.messages import INFER, STREAM_INFER
from bench.serving.processes import Server

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for every measurement
]
END = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs leave it out
WARMUP_S = 0.5
SHORTEST_S = 1e-9
_ANSWER_TAG = bytes([2 << 3 | 2])  # ModelStreamInferResponse.infer_response
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: every worker sends its message again as soon as it is answered.

    Args:
        messages: one ModelInferRequest per worker, serialised.
        seconds: length of the measurement, after the warm-up; it begins and ends with an answer.
        images: images in each message.
        streams: 0 for a call each request; else the messages are spread over this many ModelStreamInfer
            streams, each of which keeps its share in flight.
    """

    messages: Sequence[bytes]
    seconds: float
    images: int = 1
    streams: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one round of one subject gave."""

    requests: int
    seconds: float
    images: int
    server_cpu_s: float
    client_cpu_s: float

    @property
    def requests_per_s(self) -> float:
        """Answered requests per second."""
        return self.requests / self.seconds

    @property
    def images_per_s(self) -> float:
        """Answered images per second."""
        return self.requests_per_s * self.images

    @property
    def server_cpu_us(self) -> float:
        """CPU time of the server's processes per request, in microseconds."""
        return 1e6 * self.server_cpu_s / max(1, self.requests)

    @property
    def client_cpu_us(self) -> float:
        """CPU time of this client per request, in microseconds."""
        return 1e6 * self.client_cpu_s / max(1, self.requests)


def raw_call(channel: grpc.aio.Channel) -> Call:
    """Return ModelInfer as a call from bytes to bytes."""
    return channel.unary_unary(INFER, request_serializer=None, response_deserializer=None)


def measure(server: Server, load: Load) -> Measurement:
    """Drive one server. Raises grpc.RpcError on the first request that is not answered with OK."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(server, load))


async def _measure(server: Server, load: Load) -> Measurement:
    async with grpc.aio.insecure_channel(server.url, options=OPTIONS) as channel:
        loop = _ClosedLoop(channel)
        workers = [asyncio.create_task(worker) for worker in loop.workers(load)]
        try:
            await _settle(workers, WARMUP_S)
            before = _Reading.now(server, loop)
            await _settle(workers, load.seconds)
            after = _Reading.now(server, loop)
        finally:
            loop.stopped = True
            await asyncio.gather(*workers)
    return before.until(after, load.images)


async def _settle(workers: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Let the load run; a worker that ends meanwhile has failed, and its error is raised."""
    failed, _ = await asyncio.wait(workers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for worker in failed:
        worker.result()


class _ClosedLoop:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.answered = 0
        self.latest_s = 0.0
        self.stopped = False

    def workers(self, load: Load) -> list[Coroutine[Any, Any, None]]:
        """One worker a message, or one a stream."""
        if not load.streams:
            call = raw_call(self._channel)
            return [self._caller(call, message) for message in load.messages]
        return [self._streamer(load.messages[first :: load.streams]) for first in range(load.streams)]

    async def _caller(self, call: Call, message: bytes) -> None:
        while not self.stopped:
            await call(message)
            self._count()

    async def _streamer(self, messages: Sequence[bytes]) -> None:
        """Keep as many requests in flight as there are messages; every answer sends the next one."""
        stream = self._channel.stream_stream(STREAM_INFER, None, None)()  # type: ignore[call-arg]
        for message in messages:
            await stream.write(message)
        following = itertools.cycle(messages)
        while not self.stopped:
            _check(await stream.read())
            self._count()
            await stream.write(next(following))
        await stream.done_writing()
        while (answer := await stream.read()) is not END:
            _check(answer)

    def _count(self) -> None:
        self.answered += 1
        self.latest_s = time.perf_counter()


def _check(answer: object) -> None:
    """Raise unless a stream's message is an answer: an error in band begins with another field."""
    if not isinstance(answer, bytes) or answer[:1] != _ANSWER_TAG:
        raise RuntimeError(f"the stream answered {answer!r:.200}")


@dataclass(frozen=True, slots=True)
class _Reading:
    """The counts as of the latest answer.

    Answers come in bursts, a batch at a time: a window that begins and ends by the clock would hold a burst
    too few or too many.
    """

    at_s: float
    answered: int
    server_cpu_s: float
    client_cpu_s: float

    @classmethod
    def now(cls, server: Server, loop: _ClosedLoop) -> _Reading:
        at_s = loop.latest_s or time.perf_counter()
        return cls(at_s, loop.answered, server.cpu_s(), time.process_time())

    def until(self, later: _Reading, images: int) -> Measurement:
        return Measurement(
            later.answered - self.answered,
            max(later.at_s - self.at_s, SHORTEST_S),
            images,
            later.server_cpu_s - self.server_cpu_s,
            later.client_cpu_s - self.client_cpu_s,
        )
