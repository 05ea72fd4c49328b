from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from optimizer.devices.gpu import DeviceError
from optimizer.operating_point import OperatingPoint
from optimizer.surge import Tripwire
from optimizer.telemetry import BatchTimes, DeviceReading, SoFar, Traffic
from server.governing.plant import LoopCaller, ServingPlant

T = TypeVar("T")


class FakeBatching:
    def __init__(self, batch_limit: int = 1, arrived: int = 0) -> None:
        self.batch_limit = batch_limit
        self.max_delay_s = 0.0
        self.watched: tuple[Tripwire | None, Callable[[], None]] | None = None
        self.arrived = arrived
        self.slos: list[float] = []

    def take_traffic(self, slo_ms: float) -> Traffic:
        self.slos.append(slo_ms)
        return Traffic(arrived=self.arrived)

    def so_far(self) -> SoFar:
        return SoFar({4: BatchTimes(2, 0.5)}, self.arrived)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        self.watched = (wire, sound)


class FakeGpu:
    uuid = "fake"
    simulated = True
    sm_clocks_mhz = (500, 1000)

    def __init__(self) -> None:
        self.clock_mhz: int | None = None
        self.in_force_mhz: int | None = None  # by somebody else's hand
        self.asked: list[int | None] = []

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        self.asked.append(clock_mhz)
        if clock_mhz not in (None, *self.sm_clocks_mhz):
            raise DeviceError(f"{clock_mhz} MHz is not legal")
        self.clock_mhz = clock_mhz

    def read(self) -> DeviceReading:
        not_taken = "" if self.clock_mhz in (None, self.in_force_mhz or self.clock_mhz) else "another clock"
        return DeviceReading(sm_clock_mhz=self.clock_mhz, clock_not_taken=not_taken)


def directly(function: Callable[[], T], /) -> T:
    return function()


def test_acting_sets_the_batch_limit_and_the_clock() -> None:
    batching, gpu = FakeBatching(), FakeGpu()
    plant = ServingPlant(lambda: batching, gpu, directly)
    plant.act(OperatingPoint(8, 500))
    assert (batching.batch_limit, gpu.clock_mhz) == (8, 500)


def test_acting_sets_the_delay_but_never_below_what_the_operator_allows() -> None:
    batching = FakeBatching()
    plant = ServingPlant(lambda: batching, FakeGpu(), directly, least_delay_s=0.002)
    plant.act(OperatingPoint(8, 500, max_delay_ms=7.0))
    assert batching.max_delay_s == pytest.approx(0.007)
    plant.act(OperatingPoint(8, 500))
    assert batching.max_delay_s == pytest.approx(0.002)


def test_the_scheduler_is_told_what_to_watch_for() -> None:
    batching, heard = FakeBatching(), []
    plant = ServingPlant(lambda: batching, FakeGpu(), directly)
    plant.watch(Tripwire(40), lambda: heard.append("alarm"))
    assert batching.watched is not None
    limit, sound = batching.watched
    sound()
    assert (limit, heard) == (Tripwire(40), ["alarm"])


def test_the_batch_limit_is_in_force_when_the_clock_is_refused() -> None:
    batching = FakeBatching()
    plant = ServingPlant(lambda: batching, FakeGpu(), directly)
    with pytest.raises(DeviceError):
        plant.act(OperatingPoint(8, 777))
    assert batching.batch_limit == 8


def test_sensing_joins_traffic_and_readings() -> None:
    batching, gpu = FakeBatching(arrived=5), FakeGpu()
    gpu.clock_mhz = 1000
    plant = ServingPlant(lambda: batching, gpu, directly)
    assert plant.sense(50.0) == (Traffic(arrived=5), DeviceReading(sm_clock_mhz=1000))
    assert batching.slos == [50.0]


def test_a_clock_that_is_not_in_force_is_set_again_but_not_with_every_window() -> None:
    gpu = FakeGpu()
    plant = ServingPlant(FakeBatching, gpu, directly)
    plant.act(OperatingPoint(8, 500))
    gpu.in_force_mhz = 1000
    for _ in range(20):
        plant.sense(50.0)
        plant.act(OperatingPoint(8, 500))
    assert gpu.asked == [500] * 4, "at first, in windows 0, 5 and 14"


def test_the_window_in_which_a_clock_was_set_again_is_no_evidence() -> None:
    gpu = FakeGpu()
    plant = ServingPlant(FakeBatching, gpu, directly)
    plant.act(OperatingPoint(8, 500))
    gpu.in_force_mhz = 1000
    assert plant.sense(50.0)[1].clock_not_taken == "another clock"
    plant.act(OperatingPoint(8, 500))
    gpu.in_force_mhz = None
    assert "set again" in plant.sense(50.0)[1].clock_not_taken
    assert plant.sense(50.0)[1].clock_not_taken == ""


def test_the_last_few_batches_are_those_of_the_scheduler() -> None:
    batching = FakeBatching()
    batching.arrived = 7
    assert ServingPlant(lambda: batching, FakeGpu(), directly).so_far() == ({4: BatchTimes(2, 0.5)}, 7)
    assert ServingPlant(lambda: None, FakeGpu(), directly).so_far() == ({}, 0)


def test_a_reloaded_model_takes_over_the_settings_and_the_watch() -> None:
    loaded = [FakeBatching()]
    plant = ServingPlant(lambda: loaded[-1], FakeGpu(), directly)
    plant.act(OperatingPoint(4, 500, max_delay_ms=3.0))
    plant.watch(Tripwire(40), list)
    loaded.append(FakeBatching(batch_limit=32))
    plant.sense(50.0)
    assert loaded[-1].batch_limit == 4
    assert loaded[-1].max_delay_s == pytest.approx(0.003)
    assert loaded[-1].watched == (Tripwire(40), list)


def test_a_limit_set_by_hand_is_left_alone_until_the_next_decision() -> None:
    batching = FakeBatching()
    plant = ServingPlant(lambda: batching, FakeGpu(), directly)
    plant.act(OperatingPoint(4, 500))
    batching.batch_limit = 2
    plant.sense(50.0)
    assert batching.batch_limit == 2


def test_a_model_that_is_not_loaded_has_no_traffic() -> None:
    plant = ServingPlant(lambda: None, FakeGpu(), directly)
    plant.act(OperatingPoint(4, 500))
    plant.watch(Tripwire(40), list)
    assert plant.sense(50.0)[0] == Traffic()


async def test_the_loop_caller_calls_in_the_loop_s_thread() -> None:
    call = LoopCaller(asyncio.get_running_loop())
    where = await asyncio.to_thread(lambda: call(threading.current_thread))
    assert where is threading.current_thread()


async def test_the_loop_caller_passes_errors_on() -> None:
    call = LoopCaller(asyncio.get_running_loop())

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: call(fail))


def test_a_clock_is_not_asked_for_again_when_only_the_batch_changes() -> None:
    gpu = FakeGpu()
    plant = ServingPlant(FakeBatching, gpu, directly)
    for limit in (1, 2, 4):
        plant.act(OperatingPoint(limit, 500))
    plant.act(OperatingPoint(4, 1000))
    assert gpu.asked == [500, 1000]


def test_a_clock_is_given_back_and_asked_for_again_after_a_refusal_whatever_was_asked_before() -> None:
    gpu = FakeGpu()
    plant = ServingPlant(FakeBatching, gpu, directly)
    plant.act(OperatingPoint(1, 500))
    with pytest.raises(DeviceError):
        plant.act(OperatingPoint(1, 750))
    for clock_mhz in (500, None, None, 500):
        plant.act(OperatingPoint(1, clock_mhz))
    assert gpu.asked == [500, 750, 500, None, None, 500]


def test_a_clock_is_given_back_even_when_the_batches_cannot_be_reached() -> None:
    gpu = FakeGpu()
    plant = ServingPlant(FakeBatching, gpu, directly)
    plant.act(OperatingPoint(1, 500))

    def unreachable(function: Callable[[], T], /) -> T:
        raise RuntimeError("the loop has ended")

    plant._call = unreachable
    with pytest.raises(RuntimeError):
        plant.act(OperatingPoint(1, None))
    assert gpu.clock_mhz is None
