"""Waking up on time. Event loops round their timers to milliseconds: too coarse for thousands a second."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from typing import Protocol

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class Pacer(Protocol):
    """Wakes its caller at times on the monotonic clock."""

    async def until(self, when_s: float) -> None:
        """Return at `when_s` or as soon as possible after; always lets others run."""

    def close(self) -> None:
        """Release what it holds."""


def make_pacer() -> Pacer:
    """The best that this machine offers. Call inside the running event loop."""
    fd = _timerfd()
    return SleepPacer() if fd is None else TimerfdPacer(fd)


class SleepPacer:
    """Any machine: as precise as the event loop's timers."""

    async def until(self, when_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(max(0.0, when_s - time.monotonic()))

    def close(self) -> None:
        """Nothing is held."""


class TimerfdPacer:
    """Linux: a kernel timer with nanoseconds, watched by the event loop."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._settime = ctypes.CDLL(None).timerfd_settime
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(fd, self._fired)

    async def until(self, when_s: float) -> None:
        """Wait for the timer; one caller at a time."""
        if when_s <= time.monotonic():
            await asyncio.sleep(0)
            return
        self._waiter = self._loop.create_future()
        seconds, nanoseconds = divmod(round(when_s * 1e9), 1_000_000_000)
        setting = struct.pack("llll", 0, 0, seconds, nanoseconds)
        self._settime(self._fd, _TFD_TIMER_ABSTIME, setting, None)
        await self._waiter

    def close(self) -> None:
        """Close the timer."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _fired(self) -> None:
        os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _timerfd() -> int | None:
    try:
        fd = int(ctypes.CDLL(None).timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS))
    except (OSError, TypeError, AttributeError):
        return None
    return fd if fd >= 0 else None
