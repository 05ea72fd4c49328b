"""What timing a network layer by layer yields, whichever engine ran it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TimedLayer:
    """Something that an engine executes as one piece: a node of the graph, several in one, or one of its own.

    Args:
        name: as `optimizer.layers` names its node; of several, the convolution or matrix product, else the
            first; the engine's own name where `fused` is empty.
        operator: as the engine calls it.
        seconds: for one batch; see `quickest_quarter`.
        fused: the graph's nodes that it does, in the order of the graph. Empty: none that is known; the
            engine added it, e.g. to change the layout, or does not say what it does.
    """

    name: str
    operator: str
    seconds: float
    fused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A network, timed.

    Args:
        layers: in the order of execution.
        alone_s: the quickest batch, from call to return, while no layers were timed; by `clock_for`.
        watched_s: the quickest while they were.
        covered: the layers' part of the runs that they were timed in, which were the same for all; what is
            missing from 1 passed between them.
        unseen: nodes that no timed layer is known to do: they run inside others, or not at all.
    """

    layers: tuple[TimedLayer, ...]
    alone_s: float
    watched_s: float
    covered: float
    unseen: tuple[str, ...] = ()

    @property
    def layers_s(self) -> float:
        """All layers together."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def adds_up(self) -> float:
        """All layers together over the untimed run: 1 where the parts explain the whole."""
        return self.layers_s / self.alone_s

    @property
    def watching(self) -> float:
        """How many times as long a batch takes when its layers are timed."""
        return self.watched_s / self.alone_s


def quickest_quarter(seconds: Sequence[float]) -> float:
    """Return the mean of the quickest quarter: whatever else runs on the machine only adds to the others.

    A mean, because profilers round to a tick that is as long as the shortest layers take.
    """
    ordered = np.sort(np.asarray(seconds, dtype=float))
    return float(ordered[: -(-len(ordered) // 4)].mean())


def clock_for(threads: int) -> Callable[[], float]:
    """Return the clock for work on so many CPU threads, in seconds.

    Work that is done in the calling thread alone is timed by that thread's own clock, which stands still
    while the thread is interrupted.
    """
    return time.thread_time if threads == 1 else time.perf_counter
