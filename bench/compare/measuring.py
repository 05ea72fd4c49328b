"""Running batches against the clock, in the process that holds the engine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.compare.settling import Settling, SettlingRule
from server.engines.engine import Array, Engine, TensorSpec
from server.engines.overlapping import UNDER_WAY, overlapping

LEAST_BATCHES = 3
"""In a measurement, however long they take."""

_LOOK_EVERY_S = 0.001


@dataclass(frozen=True, slots=True)
class Batches:
    """What was run: `count` batches in `seconds`, and the times of those that were run one by one."""

    count: int
    seconds: float
    latencies_s: tuple[float, ...]


class Runner:
    """Runs an engine on pictures of noise: zeros would cost less power than pictures do.

    Where the engine can upload a batch while it computes another, throughput is measured so, as the server
    runs it, and latency on batches one by one just before.

    Args:
        engine: takes batches; its slots are filled here.
        clock: seconds, rising.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.perf_counter) -> None:
        self._engine = engine
        self._clock = clock
        for seed in range(UNDER_WAY):  # such engines take turns with their slots
            self._fill(seed)
            engine.run(engine.slots(1))

    def once(self, batch: int) -> float:
        """Run one batch and return its seconds, from pixels in the slots to answers in memory."""
        slots = self._engine.slots(batch)
        began_s = self._clock()
        self._engine.run(slots)
        return self._clock() - began_s

    def warm_up(self, batch: int, rule: SettlingRule) -> Settling:
        """Run until the times settle."""
        settling = Settling(rule)
        while not settling.over:
            settling.add(self.once(batch))
        return settling

    def measure(
        self, batch: int, lead_s: float, begin: Callable[[], None], stop: Callable[[], bool]
    ) -> Batches:
        """Run uncounted batches for `lead_s`, call `begin`, and count batches until `stop` says so."""
        self._for_seconds(batch, lead_s)
        if overlapping(self._engine) is None:
            begin()
            return self._one_by_one(batch, stop)
        latencies_s = self._for_seconds(batch, lead_s)
        return self._overlapping(batch, begin, stop, latencies_s)

    def _one_by_one(self, batch: int, stop: Callable[[], bool]) -> Batches:
        latencies_s: list[float] = []
        done = self._seldom(stop)
        began_s = self._clock()
        while len(latencies_s) < LEAST_BATCHES or not done():
            latencies_s.append(self.once(batch))
        return Batches(len(latencies_s), self._clock() - began_s, tuple(latencies_s))

    def _overlapping(
        self, batch: int, begin: Callable[[], None], stop: Callable[[], bool], latencies_s: tuple[float, ...]
    ) -> Batches:
        engine = overlapping(self._engine)
        assert engine is not None  # noqa: S101 - the caller looked
        engine.begin(engine.slots(batch))
        begin()
        count, done = 0, self._seldom(stop)
        began_s = self._clock()
        while count < LEAST_BATCHES or not done():
            engine.begin(engine.slots(batch))
            engine.finish()
            count += 1
        seconds = self._clock() - began_s
        engine.finish()
        return Batches(count, seconds, latencies_s)

    def _for_seconds(self, batch: int, seconds: float) -> tuple[float, ...]:
        times_s = [self.once(batch)]
        until_s = self._clock() + seconds
        while self._clock() < until_s or len(times_s) < LEAST_BATCHES:
            times_s.append(self.once(batch))
        return tuple(times_s)

    def _seldom(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Asking costs microseconds: not after every batch where batches cost no more."""
        asked_s = deque([self._clock()], maxlen=1)

        def done() -> bool:
            now_s = self._clock()
            if now_s - asked_s[0] < _LOOK_EVERY_S:
                return False
            asked_s.append(now_s)
            return stop()

        return done

    def _fill(self, seed: int) -> None:
        dice = np.random.default_rng(seed)
        for spec, buffer in zip(self._engine.inputs, self._engine.input_buffers, strict=True):
            for row in buffer:
                row[...] = noise(spec, dice)


def noise(spec: TensorSpec, dice: np.random.Generator) -> Array:
    """Return one picture of noise: any byte, or -1 to 1."""
    if spec.dtype.kind in "ui":
        return dice.integers(0, 256, spec.shape).astype(spec.dtype)
    return dice.uniform(-1.0, 1.0, spec.shape).astype(spec.dtype)
