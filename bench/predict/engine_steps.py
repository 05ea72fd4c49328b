"""Timing the steps of a network on any engine whose layers can be timed, by that engine's own profiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.layers.engines import Timer
from bench.layers.timed import TimedLayer
from optimizer.layers.count import count_layers_of_file
from optimizer.layers.dataset import Array, MeasuredNetwork
from optimizer.layers.features import features
from optimizer.layers.fusion import Step, fuse

METHOD = (
    "a step's time is the mean of the quickest quarter of its timed runs by the engine's profiler; what an "
    "engine does as one piece counts for its heaviest step; a run's time is the quickest untimed one"
)


def measure_on(timer: Timer, name: str, path: Path, batch: int, repeats: int) -> MeasuredNetwork:
    """Time a network's steps at one batch size. Raises EngineError or ValueError for a file it cannot use."""
    steps = fuse(count_layers_of_file(path, batch))
    run = timer(path, batch, threads=1, repeats=repeats)
    seconds, layout_s = assigned(steps, run.layers)
    seen = seconds > 0.0
    table = features(steps).rows(seen)
    return MeasuredNetwork(name, batch, table, seconds[seen], None, run.alone_s, layout_s)


def assigned(steps: Sequence[Step], timed: Sequence[TimedLayer]) -> tuple[Array, float]:
    """Return the seconds of each step, 0 where it is part of another one, and those that belong to none."""
    place_of = {
        part.name: place for place, step in enumerate(steps) for part in (step.leader, *step.followers)
    }
    seconds, layout_s = np.zeros(len(steps)), 0.0
    for layer in timed:
        places = [place_of[name] for name in (layer.name, *layer.fused) if name in place_of]
        if places:
            seconds[places[0]] += layer.seconds
        else:
            layout_s += layer.seconds
    return seconds, layout_s
