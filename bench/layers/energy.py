"""Energy of single layers, as far as it can be known.

Layers last microseconds, and counters of energy are refreshed every 20 to 100 milliseconds, so that no layer
can be metered while the network runs. Two ways remain:

- *repeated*: the layer alone, over and over for seconds. The power that it draws then, less the idle power,
  times the time that it takes within the network, is its energy. Repeated it finds its data in the caches,
  which the network's other layers would have filled with theirs.
- *by time*: the network is metered as a whole, and each layer is given the part of its energy above idle that
  it has of the time. That says nothing about whether one layer draws more power than another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bench.layers.cost import LayerCost


class Rule(StrEnum):
    """How a layer's energy was found."""

    REPEATED = "repeated"
    BY_TIME = "by time"


class Spent(Protocol):
    """Energy of a span of time; `power_w` is None when nothing measured it."""

    @property
    def power_w(self) -> float | None:
        """Mean power."""

    @property
    def source(self) -> str:
        """What measured it."""


class SpanMeter(Protocol):
    """Measures energy while another thread is at work."""

    def span(self, seconds: float) -> Spent:
        """Return the energy of at least so many seconds."""


@dataclass(frozen=True, slots=True)
class NetworkEnergy:
    """The whole network, repeated.

    Args:
        idle_w: power while nothing ran.
        power_w: while the network ran over and over.
        batch_s: how long one batch took meanwhile.
        source: of the figures.
    """

    idle_w: float
    power_w: float
    batch_s: float
    source: str

    @property
    def above_idle_j(self) -> float:
        """Energy of one batch that would not have been used otherwise."""
        return (self.power_w - self.idle_w) * self.batch_s

    @property
    def batch_j(self) -> float:
        """Energy of one batch, the idle power's part with it."""
        return self.power_w * self.batch_s


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """One layer in one batch.

    Args:
        above_idle_j: energy that would not have been used otherwise.
        above_idle_w: power while the layer ran, less idle; None where nobody measured it for this layer.
        rule: how it was found.
        repeated_s: how long the layer took when it was repeated; None where it was not.
    """

    above_idle_j: float
    above_idle_w: float | None
    rule: Rule
    repeated_s: float | None = None


def meter_network(
    meter: SpanMeter, idle_w: float | None, run: Callable[[], None], seconds: float
) -> NetworkEnergy | None:
    """Run batches for some seconds; None when nothing measures energy."""
    with _busy(run) as work:
        spent = meter.span(seconds)
    if spent.power_w is None or idle_w is None:
        return None
    return NetworkEnergy(idle_w, spent.power_w, work.batch_s, spent.source)


def by_time(whole: NetworkEnergy, layers: Sequence[LayerCost]) -> tuple[LayerEnergy, ...]:
    """Divide the energy of the network by the layers' parts of the time."""
    return tuple(LayerEnergy(whole.above_idle_j * layer.share, None, Rule.BY_TIME) for layer in layers)


def repeated(
    meter: SpanMeter, idle_w: float, run: Callable[[], None], seconds: float, in_network_s: float
) -> LayerEnergy | None:
    """Repeat a layer for some seconds; None when the counter gave nothing."""
    found = meter_network(meter, idle_w, run, seconds)
    if found is None:
        return None
    above_w = found.power_w - idle_w
    return LayerEnergy(above_w * in_network_s, above_w, Rule.REPEATED, found.batch_s)


class _Work:
    """A call that a thread repeats until it is told to end; what it raises is kept."""

    def __init__(self, run: Callable[[], None], clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock
        self._under_way = threading.Event()
        self._end = threading.Event()
        self._began_s = clock()
        self._done_s = self._began_s
        self._runs = 0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._repeat, name="repeated layer")

    @property
    def batch_s(self) -> float:
        """Mean time of a run."""
        return (self._done_s - self._began_s) / max(1, self._runs)

    def start(self) -> None:
        """Begin, and wait until the first run is over, which finds nothing prepared."""
        self._thread.start()
        self._under_way.wait()

    def end(self) -> None:
        """Wait for the last run. Raises what a run raised."""
        self._end.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _repeat(self) -> None:
        try:
            self._run()
            self._began_s = self._clock()
            self._under_way.set()
            while not (self._runs and self._end.is_set()):
                self._run()
                self._runs += 1
                self._done_s = self._clock()
        except Exception as error:  # told to the thread that waits
            self._failure = error
        finally:
            self._under_way.set()


@contextmanager
def _busy(run: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> Iterator[_Work]:
    work = _Work(run, clock)
    work.start()
    try:
        yield work
    finally:
        work.end()
