"""Energy from power: for a card without an energy counter, its power is sampled and summed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread

from optimizer.telemetry import NOT_MEASURED, Energy, EnergySource

PERIOD_S = 0.05  # the sensor of a P100 is refreshed every 20 ms, of later cards every 100 ms
_PAUSE_AFTER_FAILURE_S = 1.0
_LONGEST_GAP_S = 1.0  # what a card drew while nobody looked for longer is not known
_LONGEST_CALL_S = 2.0


class PowerIntegral:
    """Adds power up over time, by trapezoids, in a daemon thread that the first `take` starts.

    `close` ends the thread. A sample that could not be had leaves its interval unmeasured.

    Args:
        power_w: the power now; None when it cannot be had. Called from the thread and from `take`.
        clock: the time in seconds.
        period_s: the time between samples.
    """

    def __init__(
        self,
        power_w: Callable[[], float | None],
        clock: Callable[[], float],
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        self._power_w = power_w
        self._clock = clock
        self._period_s = period_s
        self._lock = Lock()
        self._last: tuple[float, float] | None = None  # when, and how many watts
        self._joules = 0.0
        self._broken = False
        self._stop = Event()
        self._thread: Thread | None = None

    def take(self) -> Energy:
        """Return the energy since the previous call; the first call opens the interval: its energy is 0."""
        if self._thread is None and not self._stop.is_set():
            self._thread = Thread(target=self._run, name="gpu-power", daemon=True)
            self._thread.start()
        self.sample()
        with self._lock:
            joules, self._joules = self._joules, 0.0
            broken, self._broken = self._broken, False
            unknown = broken or self._last is None or self._stop.is_set()
        return NOT_MEASURED if unknown else Energy(joules, EnergySource.NVML_POWER)

    def sample(self) -> bool:
        """Take one sample; returns whether there was one. The lock keeps samples in order."""
        with self._lock:
            watts = self._power_w()
            if watts is None:
                self._last, self._broken = None, True
                return False
            now_s = self._clock()
            self._add(now_s, watts)
            self._last = now_s, watts
            return True

    def close(self) -> None:
        """End the thread. Waits for the sample that it is taking, but not for ever."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_CALL_S)

    def _add(self, now_s: float, watts: float) -> None:
        if self._last is None:
            return
        last_s, last_w = self._last
        gap_s = now_s - last_s
        if 0.0 <= gap_s <= _LONGEST_GAP_S:
            self._joules += gap_s * (watts + last_w) / 2.0
        else:
            self._broken = True

    def _run(self) -> None:
        pause_s = self._period_s
        while not self._stop.wait(pause_s):
            pause_s = self._period_s if self.sample() else _PAUSE_AFTER_FAILURE_S
