"""Timing the steps of a network on ONNX Runtime's CPU engine, on a machine that others use too.

One thread runs the network, first untimed, then timed. Others must not be counted in: a whole run is
counted in the processor time of its thread; before each run the thread sleeps, so that the system lets it run
at once and for a while; and a step's time is the lower quartile of its runs, that of a long one, which may be
interrupted in most of them, the lowest tenth. Long steps may still have been interrupted in nearly all of
their runs: where the steps add up to more than the processor time of the whole, the long ones are shortened
in proportion until they do not.

Others may also share the core itself, and its caches (see `bench.undisturbed`): runs beside them do not count
while there is patience for others. What is left of them is in every time: so one look at a network is short,
and a calibration looks in several rounds, of which the middle counts: twice as repeatable as the shortest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from bench.layers.inputs import make_inputs
from bench.layers.profile import Profile, read_profile
from bench.layers.sessions import EXECUTED, cpu_options, open_on_cpu, profiling_options
from bench.undisturbed import Core
from optimizer.layers.count import count_layers
from optimizer.layers.dataset import Array, MeasuredNetwork
from optimizer.layers.features import features
from optimizer.layers.fusion import Step, fuse

METHOD = (
    "single thread, nice 0; runs beside others on the same core do not count while there is patience; a "
    "step's time is the lower quartile of its timed runs, from 0.3 ms on the lowest tenth, long steps "
    "shortened so that they add up to the run; a run's time is the lowest tenth of its thread's processor "
    "time; of several rounds the median"
)

_LOWER, _LOWER_OF_SHORT = 0.1, 0.25
_SLEEP_S = 0.01
_LONG_S = 0.3e-3
"""Steps that are shorter are seldom interrupted in most of their runs."""
_ROUNDED_OFF_S = 0.5e-6  # the profiler counts whole microseconds and leaves off the rest
_FIRSTS = (0, 1, 2)
"""Runs on cold caches: of the network, and after the other session's."""
_RENAMED = re.compile(r"(?P<answer>.+?)(_bn)?_nchwc(_token_\d+)?")
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to look at one network at a time: timed runs, and seconds for all of them."""

    least_runs: int = 3
    most_runs: int = 12
    most_s: float = 0.15


def measure(name: str, path: Path, batch: int, effort: Effort, core: Core) -> MeasuredNetwork:
    """Time a network's steps at one batch size. Raises EngineError or ValueError for a file it cannot use."""
    given = onnx.load(path, load_external_data=False)
    steps = fuse(count_layers(given, batch))
    inputs = make_inputs(given, batch)
    with TemporaryDirectory() as folder:
        alone = open_on_cpu(path, cpu_options(1))
        watched = open_on_cpu(path, profiling_options(1, Path(folder)))
        alone_s, uncounted = _watch(alone, watched, inputs, effort, core)
        profile = read_profile(Path(watched.end_profiling()), skipped=uncounted)
        executed = onnx.load(Path(folder, EXECUTED), load_external_data=False)
    seconds, layout_s = _assigned(steps, executed, profile)
    seconds = without_interruptions(seconds, alone_s - layout_s)
    seen = seconds > 0.0
    table = features(steps).rows(seen)
    return MeasuredNetwork(name, batch, table, seconds[seen], None, alone_s, layout_s)


def without_interruptions(seconds: Array, whole_s: float) -> Array:
    """Shorten long steps in proportion until all together take no more than `whole_s`."""
    long = seconds > _LONG_S
    too_much_s = float(seconds.sum()) - whole_s
    if too_much_s <= 0.0 or not long.any():
        return seconds
    factor = 1.0 - too_much_s / float(seconds[long].sum())
    return np.where(long, np.maximum(seconds * factor, _LONG_S / 2.0), seconds)


def usual_s(runs_s: Sequence[float]) -> float:
    """Return what a step takes, given its runs: low enough to leave out those that were interrupted."""
    short = float(np.median(runs_s)) <= _LONG_S
    return float(np.quantile(runs_s, _LOWER_OF_SHORT if short else _LOWER))


def _watch(
    alone: Any,  # noqa: ANN401
    watched: Any,  # noqa: ANN401
    inputs: dict[str, Any],
    effort: Effort,
    core: Core,
) -> tuple[float, tuple[int, ...]]:
    """Run both; return the processor seconds of an untimed run, and which timed runs do not count."""
    for _ in _FIRSTS[:-1]:
        had_s = _had_s(watched, inputs)
    runs = int(np.clip(effort.most_s / had_s, effort.least_runs, effort.most_runs))
    _had_s(alone, inputs)
    alone_s, _ = _look(alone, inputs, -(-runs // 2), core)
    _had_s(watched, inputs)
    _, disturbed = _look(watched, inputs, runs, core)
    return _lower(alone_s), (*_FIRSTS, *(len(_FIRSTS) + number for number in disturbed))


def _look(session: Any, inputs: dict[str, Any], runs: int, core: Core) -> tuple[list[float], list[int]]:  # noqa: ANN401
    """Run until so many runs count; return the processor seconds of those, and the numbers of the others.

    Once there is no patience left for an undisturbed core, all count.
    """
    counted_s: list[float] = []
    others: list[int] = []
    patient = True
    while len(counted_s) < runs:
        time.sleep(_SLEEP_S)
        patient = patient and core.wait()
        had_s = _had_s(session, inputs)
        if patient and not core.is_alone():
            others.append(len(counted_s) + len(others))
        else:
            counted_s.append(had_s)
    return counted_s, others


def _had_s(session: Any, inputs: dict[str, Any]) -> float:  # noqa: ANN401
    """Run once and return the processor time."""
    began_s = time.thread_time()
    session.run(None, inputs)
    return time.thread_time() - began_s


def _assigned(steps: Sequence[Step], executed: ModelProto, profile: Profile) -> tuple[Array, float]:
    """Return the seconds of each step, 0 where nothing was seen of it, and those that belong to none."""
    place_of = {name: place for place, step in enumerate(steps) for name in (step.name, *step.tensors)}
    answers = {node.name: _answers(node) for node in executed.graph.node}
    seconds, layout_s = np.zeros(len(steps)), 0.0
    for node in profile.nodes:
        node_s = usual_s(node.seconds) + _ROUNDED_OFF_S
        places = [place_of[name] for name in answers.get(node.name, ()) if name in place_of]
        if places and node.operator not in _LAYOUT:
            seconds[places[0]] += node_s
        else:
            layout_s += node_s
    return seconds, layout_s


def _answers(node: NodeProto) -> tuple[str, ...]:
    """Return what tells a step: tensors that an executed node answered with, what it is named after.

    In blocked layout tensors get new names; the node is then called after the answer that it had, with
    an activation but before a sum.
    """
    renamed = _RENAMED.fullmatch(node.name)
    return (*node.output, renamed["answer"] if renamed else node.name)


def _lower(values: Sequence[float]) -> float:
    return float(np.quantile(values, _LOWER))
