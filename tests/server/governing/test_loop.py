from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from optimizer.governor import Governor, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision, Policy
from optimizer.revenue import Targets
from optimizer.telemetry import DeviceReading, Energy, EnergySource, Traffic, Window
from server.governing.decision_text import decision_line
from server.governing.loop import WATCHER_BACKLOG, Governing

GRID = OperatingGrid((1, 2, 4), (500, 1000))


class FakePlant:
    def __init__(self) -> None:
        self.points: list[OperatingPoint] = []
        self.threads: set[int] = set()
        self.watched: tuple[int | None, Callable[[], None]] = (None, list)

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        self.threads.add(threading.get_ident())
        energy = Energy(12.0, EnergySource.SIMULATED)
        return Traffic(completed=9, late=2, latency_p99_ms=70.0), DeviceReading(energy=energy)

    def act(self, point: OperatingPoint) -> None:
        self.points.append(point)

    def watch(self, queued_images: int | None, sound: Callable[[], None]) -> None:
        self.watched = (queued_images, sound)


class Cycle:
    """Decides on one point after the other; fails where there is none left."""

    name = "cycle"

    def __init__(self, points: Iterator[OperatingPoint]) -> None:
        self.points = points

    def decide(self, window: Window, targets: Targets) -> Decision:
        point = next(self.points, None)
        if point is None:
            raise ArithmeticError("no point is left")
        return Decision(point, "it is its turn")


def ticks() -> Callable[[], float]:
    times = iter(range(1_000_000))
    return lambda: float(next(times))


def make(plant: FakePlant, *points: OperatingPoint) -> Governing:
    governor = Governor(plant, Cycle(iter(points)), GRID, Targets(), ticks())
    return Governing(governor, device=None, model="net", interval_s=0.001)


async def test_decisions_are_applied_logged_and_watched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = FakePlant()
    governing = make(plant, OperatingPoint(2, 500), *([OperatingPoint(1, 1000)] * 100_000))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    record = (await first).record
    assert record.decision.point == OperatingPoint(2, 500)
    assert (await anext(watching)).record.decision.point == OperatingPoint(1, 1000)
    await governing.stop()
    assert governing.last is not None
    assert plant.points[:3] == [GRID.default, OperatingPoint(2, 500), OperatingPoint(1, 1000)]
    assert any("net: batch <= 2 at 500 MHz: it is its turn" in line for line in caplog.messages)


async def test_stopping_gives_the_device_back_and_ends_the_watchers() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    watched: list[object] = []

    async def watch() -> None:
        watched.extend([record async for record in governing.watch()])

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await governing.start()
    await governing.stop()
    await watcher
    assert plant.points[-1] == OperatingPoint(4, None)
    assert governing.watchers == 0
    await governing.stop()


async def test_half_a_start_is_undone() -> None:
    plant = FakePlant()
    governing = make(plant)
    acted, go_on = threading.Event(), threading.Event()

    def act(point: OperatingPoint) -> None:
        acted.set()
        assert go_on.wait(30)
        plant.points.append(point)

    plant.act = act
    starting = asyncio.create_task(governing.start())
    await asyncio.to_thread(acted.wait, 30)
    starting.cancel()
    stopping = asyncio.create_task(governing.stop())
    go_on.set()
    await stopping
    assert plant.points == [GRID.default, OperatingPoint(4, None)]


async def test_an_idle_server_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = FakePlant()
    plant.sense = lambda slo_ms: (Traffic(), DeviceReading())
    governing = make(plant, OperatingPoint(2, 500), *([OperatingPoint(2, 500)] * 100_000))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await first
    for _ in range(5):
        await anext(watching)
    await governing.stop()
    assert sum("it is its turn" in line for line in caplog.messages) == 1


async def test_the_device_is_used_by_one_thread_that_is_not_the_loop_s() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    watching = governing.watch()
    started = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await started
    await governing.stop()
    assert len(plant.threads) == 1
    assert threading.get_ident() not in plant.threads


async def test_a_failing_policy_is_reported_once_and_the_setting_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plant = FakePlant()
    governing = make(plant, OperatingPoint(2, 500))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await first
    sensed = asyncio.Event()
    plant.sense = lambda slo_ms: (loop.call_soon_threadsafe(sensed.set), FakePlant().sense(slo_ms))[1]
    loop = asyncio.get_running_loop()
    for _ in range(3):
        sensed.clear()
        await sensed.wait()
    await governing.stop()
    assert plant.points[1:-1] == [OperatingPoint(2, 500)]
    assert sum("governing failed" in line for line in caplog.messages) == 1


async def test_a_slow_watcher_loses_the_oldest() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    slow, fast = governing.watch(), governing.watch()
    first = [asyncio.create_task(anext(watching)) for watching in (slow, fast)]
    await asyncio.sleep(0)
    await governing.start()
    (oldest, _) = await asyncio.gather(*first)
    newest = [await anext(fast) for _ in range(WATCHER_BACKLOG + 5)][-1]
    await governing.stop()
    seen = [record async for record in slow]
    assert len(seen) < WATCHER_BACKLOG
    assert seen[0].record.window.start_s > oldest.record.window.end_s
    assert seen[-1].record.window.start_s >= newest.record.window.start_s


def stepped(policy: Policy) -> Record:
    return Governor(FakePlant(), policy, GRID, Targets(), ticks(), time_of_day=lambda: 0.0).step()


def test_a_decision_reads_as_a_sentence() -> None:
    line = decision_line(stepped(Cycle(iter([OperatingPoint(2, 500)]))))
    assert line.startswith("batch <= 2 at 500 MHz: it is its turn | last 1.0 s at batch <= 4 at 1000 MHz: ")
    assert "7 images in time, 2 late, 0 queued, p99 70.0 ms, 12.0 J (simulated), revenue" in line


def test_energy_that_nobody_measured_is_called_so() -> None:
    plant = FakePlant()
    plant.sense = lambda slo_ms: (Traffic(), DeviceReading())
    governor = Governor(plant, Cycle(iter([GRID.default])), GRID, Targets(), ticks())
    line = decision_line(governor.step())
    assert line.startswith("batch <= 4 at 1000 MHz: it is its turn")
    assert "energy not measured" in line
    assert line.endswith("an hour without energy")
