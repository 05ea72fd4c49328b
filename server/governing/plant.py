"""What the governor governs: one model's scheduler, and the device that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol, TypeVar

from optimizer.devices.gpu import Gpu
from optimizer.insistence import Insistence
from optimizer.operating_point import OperatingPoint
from optimizer.surge import Tripwire
from optimizer.telemetry import DeviceReading, SoFar, Traffic

T = TypeVar("T")
_SET_AGAIN = "it was set again as the window began"


class Batching(Protocol):
    """The part of a scheduler that is governed. Belongs to the event loop."""

    batch_limit: int
    max_delay_s: float

    def take_traffic(self, slo_ms: float) -> Traffic:
        """Return what happened since the previous call."""

    def so_far(self) -> SoFar:
        """Return the last few batches that ran, and the images that came since traffic was taken."""

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` once, as soon as the wire is tripped; None: never."""


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
            new one is given the settings of the old, whose last moments no window shows.
        device: runs the model.
        call: calls what belongs to the event loop.
        least_delay_s: what the operator lets a batch wait to grow, whatever is decided.
    """

    def __init__(
        self,
        batching: Callable[[], Batching | None],
        device: Gpu,
        call: Caller,
        *,
        least_delay_s: float = 0.0,
    ) -> None:
        self._batching = batching
        self._device = device
        self._call = call
        self._least_delay_s = least_delay_s
        self._point: OperatingPoint | None = None
        self._watch: tuple[Tripwire | None, Callable[[], None]] | None = None
        self._current: Batching | None = None
        self._clock_mhz: int | None = None
        self._insistence = Insistence()
        self._forgotten = False

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        """Return the traffic and the device's readings since the previous call."""
        traffic = self._call(lambda: self._take_traffic(slo_ms))
        return traffic, self._insist(self._device.read())

    def act(self, point: OperatingPoint) -> None:
        """Apply batch limit and delay, then the clock. Raises `DeviceError` when the clock is refused."""
        try:
            self._call(lambda: self._set_point(point))
        finally:  # whatever happens to the batches, a clock that is to be given back is given back
            self._set_clock(point.sm_clock_mhz)

    def so_far(self) -> SoFar:
        """Return the last few batches and the images since `sense`; none while no model is loaded."""
        return self._call(self._so_far)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Have `sound` called once, in the event loop, as soon as the wire is tripped; None: never."""
        self._call(lambda: self._set_watch(wire, sound))

    def _set_clock(self, clock_mhz: int | None) -> None:
        """Ask for a clock unless it is the one asked for last: a set costs some 10 ms, and settling time."""
        if clock_mhz is not None and clock_mhz == self._clock_mhz:
            return
        self._clock_mhz = None
        self._device.set_sm_clock_mhz(clock_mhz)
        self._clock_mhz = clock_mhz

    def _insist(self, reading: DeviceReading) -> DeviceReading:
        """Forget a clock that is not in force, so that it is set again; the window after is no evidence."""
        mixed, self._forgotten = self._forgotten, self._insistence.due(in_force=not reading.clock_not_taken)
        if self._forgotten:
            self._clock_mhz = None
        return replace(reading, clock_not_taken=reading.clock_not_taken or (_SET_AGAIN if mixed else ""))

    def _take_traffic(self, slo_ms: float) -> Traffic:
        batching = self._follow()
        return Traffic() if batching is None else batching.take_traffic(slo_ms)

    def _so_far(self) -> SoFar:
        batching = self._follow()
        return SoFar({}, 0) if batching is None else batching.so_far()

    def _set_point(self, point: OperatingPoint) -> None:
        self._point = point
        batching = self._follow()
        if batching is not None:
            self._batch_as_told(batching)

    def _set_watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        self._watch = (wire, sound)
        batching = self._follow()
        if batching is not None:
            batching.watch(wire, sound)

    def _follow(self) -> Batching | None:
        batching = self._batching()
        if batching is not self._current:
            self._current = batching
            if batching is not None:
                self._batch_as_told(batching)
                batching.watch(*(self._watch or (None, _nobody)))
        return batching

    def _batch_as_told(self, batching: Batching) -> None:
        if self._point is not None:
            batching.batch_limit = self._point.batch_limit
            batching.max_delay_s = max(self._least_delay_s, self._point.max_delay_ms / 1e3)


def _nobody() -> None:
    """Hear an alarm that is off."""
