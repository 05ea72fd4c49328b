"""From images that pile up to a setting changed by the governor's thread: scheduler, plant and loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
from answering import answered

from optimizer.governor import Governor
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision
from optimizer.revenue import Targets
from optimizer.surge import Tripwire
from optimizer.telemetry import DeviceReading, Window
from server.engines.engine import Array, TensorSpec
from server.governing.loop import Governing
from server.governing.plant import LoopCaller, ServingPlant
from server.scheduling.scheduler import Scheduler, SchedulerSettings

GRID = OperatingGrid(tuple(range(1, 9)), (500, 1000))
CALM, REFUGE = OperatingPoint(2, 500, max_delay_ms=4.0), OperatingPoint(8, 1000)


class HeldEngine:
    """Runs nothing until it is let go."""

    inputs = outputs = (TensorSpec("x", "FP32", (1,)),)
    input_buffers: tuple[Array, ...] = (np.zeros((8, 1), np.float32),)
    served_batches: tuple[int, ...] = ()
    padded_images = 0
    platform = "held"
    max_batch = 8
    reads_foreign_memory = True
    any_thread = simulated = False

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        assert self.go_on.wait(30)
        return (inputs[0].copy(),)

    def close(self) -> None:
        pass


class FakeGpu:
    uuid = "fake"
    simulated = True
    sm_clocks_mhz = GRID.sm_clocks_mhz

    def __init__(self) -> None:
        self.set_by: list[tuple[int | None, int]] = []

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        self.set_by.append((clock_mhz, threading.get_ident()))

    def read(self) -> DeviceReading:
        return DeviceReading()


class Calm:
    """Saves energy until more than six images wait."""

    name = "calm"

    def decide(self, window: Window, targets: Targets) -> Decision:
        return Decision(CALM, "all is calm", alarm=Alarm(Tripwire(6), REFUGE))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0)


async def test_a_queue_that_grows_is_answered_before_the_next_decision() -> None:
    engine, gpu = HeldEngine(), FakeGpu()
    scheduler = Scheduler(engine, SchedulerSettings(8))
    scheduler.start()
    plant = ServingPlant(lambda: scheduler, gpu, LoopCaller(asyncio.get_running_loop()))
    ticks = iter(range(100))
    governor = Governor(plant, Calm(), GRID, Targets(), lambda: float(next(ticks)))
    governing = Governing(governor, gpu, "net", interval_s=3600.0)
    await governing.start()
    await governing._step()
    assert (scheduler.batch_limit, scheduler.max_delay_s) == (2, 0.004)

    image = (np.zeros((1, 1), np.float32),)
    requests = [asyncio.ensure_future(answered(scheduler, image, 1, nbytes=4)) for _ in range(2 + 2 + 6)]
    await until(lambda: scheduler.queued_images == 6)
    assert scheduler.batch_limit == 2
    requests.append(asyncio.ensure_future(answered(scheduler, image, 1, nbytes=4)))
    await until(lambda: governing.alarms == 1)
    assert (scheduler.batch_limit, scheduler.max_delay_s) == (8, 0.0)
    clock_mhz, thread = gpu.set_by[-1]
    assert clock_mhz == 1000
    assert thread != threading.get_ident()

    engine.go_on.set()
    await asyncio.gather(*requests)
    await governing._step()
    assert governing.last is not None
    assert governing.last.window.point == REFUGE
    assert scheduler.batch_limit == 2
    await governing.stop()
    scheduler.close()
    await scheduler.wait_closed()
