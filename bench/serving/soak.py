"""Memory under a long full load with cancellations: does the server grow, does it lose descriptors?

A closed loop of single UINT8 images and FP32 batches; a fifth of the requests are cancelled after a random
time, some before they are sent, some while they run. Resident memory and descriptors of all the server's
processes are read every second; what front ends share with the core counts once. The last quarter of the run
is compared with the second: in the first, buffers and heaps find their size. Growth counts as noise up to the
range that the second quarter itself went through.

Batches are small, so that engines meet their largest within seconds: what the first batch of a size takes is
bounded and no growth, but the largest of all may come as late as chance will have it.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.serving import command
from bench.serving.client import OPTIONS, Call, raw_call
from bench.serving.messages import infer_request
from bench.serving.networks import CHW, INPUT, images, write_repository
from bench.serving.processes import Server
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread
from bench.serving.settings import Settings
from bench.serving.subjects import boulton

MIB = 1 << 20
WORKERS = 32
BIG_WORKERS = 4
CONNECTIONS = 4
CANCELLED_SHARE = 0.2
LONGEST_WAIT_S = 0.05
SMALLEST_NOISE_MIB = 4.0
MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's process at one moment."""

    at_s: float
    resident_mib: float
    descriptors: int


@dataclass(slots=True)
class Counts:
    """What the clients saw."""

    answered: int = 0
    cancelled: int = 0


def run(settings: Settings, console: Console) -> Result:
    """Soak one server; report growth and descriptors."""
    models = ["small-uint8", "negligible-fp32"]
    with tempfile.TemporaryDirectory() as directory:
        repository = write_repository(Path(directory))
        flags = ("--max-batch", str(MAX_BATCH), "--front-ends", str(settings.front_ends))
        with boulton(repository, models, *flags) as server:
            counts = Counts()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                samples = runner.run(_soak(server, settings.soak_s, counts, console))
    return Result("soak", "Memory under a soak", figures(samples, counts), _conditions(settings, samples))


def figures(samples: Sequence[Sample], counts: Counts) -> list[Figure]:
    """Turn samples, at least four of them, into figures."""
    resident = [sample.resident_mib for sample in samples]
    descriptors = [float(sample.descriptors) for sample in samples]
    quarter = len(samples) // 4
    settled = resident[quarter : 2 * quarter]
    noise = max(SMALLEST_NOISE_MIB, max(settled) - min(settled))
    growth = statistics.median(resident[-quarter:]) - statistics.median(settled)
    lost = statistics.median(descriptors[-quarter:]) - statistics.median(descriptors[quarter : 2 * quarter])
    return [
        Figure("requests answered", _one(counts.answered), ""),
        Figure("requests cancelled", _one(counts.cancelled), ""),
        Figure("resident memory", Spread.of(resident), "MiB"),
        Figure("growth, second to last quarter", _one(growth), "MiB", at_most=round(noise, 1)),
        Figure("descriptors", Spread.of(descriptors), ""),
        Figure("descriptors lost, second to last quarter", _one(lost), "", at_most=0),
    ]


def _one(value: float) -> Spread:
    return Spread(value, value, value)


def _conditions(settings: Settings, samples: Sequence[Sample]) -> tuple[str, ...]:
    step = max(1, len(samples) // 10)
    course = ", ".join(f"{sample.at_s:.0f} s: {sample.resident_mib:.0f}" for sample in samples[::step])
    return (
        f"{settings.soak_s:g} s, {settings.front_ends} front ends, {CONNECTIONS} connections",
        f"{WORKERS} workers with single UINT8 images, {BIG_WORKERS} with FP32 batches of 8",
        f"batches up to {MAX_BATCH} images, 1 engine thread",
        f"{CANCELLED_SHARE:.0%} of the requests cancelled after 0 to {1e3 * LONGEST_WAIT_S:g} ms",
        f"resident MiB over time: {course}",
    )


async def _soak(server: Server, seconds: float, counts: Counts, console: Console) -> list[Sample]:
    small = infer_request("small-uint8", INPUT, images("UINT8", 1, CHW))
    big = infer_request("negligible-fp32", INPUT, images("FP32", 8))
    messages = [small] * WORKERS + [big] * BIG_WORKERS
    end_s = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.url, options=OPTIONS))
            for _ in range(CONNECTIONS)
        ]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for seed, message in enumerate(messages):
            call = raw_call(channels[seed % CONNECTIONS])
            group.create_task(_worker(call, message, end_s, counts, random.Random(seed)))
        return await _watch(server, seconds, console)


async def _worker(call: Call, message: bytes, end_s: float, counts: Counts, rng: random.Random) -> None:
    while time.monotonic() < end_s:
        answer = call(message)
        if rng.random() < CANCELLED_SHARE:
            await asyncio.sleep(rng.uniform(0, LONGEST_WAIT_S))
            answer.cancel()
        try:
            await answer
            counts.answered += 1
        except asyncio.CancelledError:
            if not answer.cancelled():
                raise
            counts.cancelled += 1


async def _watch(server: Server, seconds: float, console: Console) -> list[Sample]:
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn())
    start_s, samples = time.monotonic(), []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("soaking", total=seconds)
        while (at_s := time.monotonic() - start_s) < seconds:
            samples.append(Sample(at_s, server.resident_bytes() / MIB, server.descriptors()))
            progress.update(task, completed=at_s, description=f"{samples[-1].resident_mib:.0f} MiB")
            await asyncio.sleep(min(1.0, seconds / 20))
    return samples


if __name__ == "__main__":
    command.main(run, __doc__)
