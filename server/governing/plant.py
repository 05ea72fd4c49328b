"""What the governor governs: one model's scheduler, and the device that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from optimizer.devices.gpu import Gpu
from optimizer.operating_point import OperatingPoint
from optimizer.telemetry import DeviceReading, Traffic

T = TypeVar("T")


class Batching(Protocol):
    """The part of a scheduler that is governed. Belongs to the event loop."""

    batch_limit: int

    def take_traffic(self, slo_ms: float) -> Traffic:
        """Return what happened since the previous call."""


class Caller(Protocol):
    """Calls a function where it may be called, and returns its result."""

    def __call__(self, function: Callable[[], T], /) -> T:
        """Call and return the result, or raise what it raised."""


class LoopCaller:
    """Calls functions in an event loop, from another thread that waits for the result.

    The loop must go on running until the call is done: whoever ends the loop ends the thread first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(self, function: Callable[[], T], /) -> T:
        """Call and wait. Never from the loop's own thread, which would wait for itself."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(_fulfil, done, function)
        return done.result()


def _fulfil(done: Future[T], function: Callable[[], T]) -> None:
    try:
        done.set_result(function())
    except Exception as error:
        done.set_exception(error)


class ServingPlant:
    """Implements the governor's `Plant`. Reading and setting a device may block: call from a thread.

    Args:
        batching: finds the scheduler in force, None while the model is not loaded. A reload replaces it: the
            new one is given the batch limit of the old, whose last moments no window shows.
        device: runs the model.
        call: calls what belongs to the event loop.
    """

    def __init__(self, batching: Callable[[], Batching | None], device: Gpu, call: Caller) -> None:
        self._batching = batching
        self._device = device
        self._call = call
        self._batch_limit: int | None = None
        self._current: Batching | None = None

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        """Return the traffic and the device's readings since the previous call."""
        traffic = self._call(lambda: self._take_traffic(slo_ms))
        return traffic, self._device.read()

    def act(self, point: OperatingPoint) -> None:
        """Apply the batch limit, then the clock. Raises `DeviceError` when the device refuses the clock."""
        self._call(lambda: self._set_batch_limit(point.batch_limit))
        self._device.set_sm_clock_mhz(point.sm_clock_mhz)

    def _take_traffic(self, slo_ms: float) -> Traffic:
        batching = self._follow()
        return Traffic() if batching is None else batching.take_traffic(slo_ms)

    def _set_batch_limit(self, batch_limit: int) -> None:
        self._batch_limit = batch_limit
        batching = self._follow()
        if batching is not None:
            batching.batch_limit = batch_limit

    def _follow(self) -> Batching | None:
        batching = self._batching()
        if batching is not self._current:
            self._current = batching
            if batching is not None and self._batch_limit is not None:
                batching.batch_limit = self._batch_limit
        return batching
