"""ONNX Runtime on the CPU, timed layer by layer by its own profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnx import ModelProto

from bench.layers.inputs import make_inputs
from bench.layers.origin import find_origins, main_node, operators_of
from bench.layers.profile import Profile, read_profile
from bench.layers.reading import read_named
from bench.layers.sessions import EXECUTED, cpu_options, open_on_cpu, profiling_options
from bench.layers.timed import TimedLayer, TimedRun, clock_for, quickest_quarter
from server.engines.engine import Array

REPEATS = 50
_BLOCKS = 5  # timed and untimed runs take turns, so that a change of the machine's pace meets both


def time_layers(
    onnx_path: Path, batch: int, *, threads: int = 1, repeats: int = REPEATS
) -> tuple[TimedLayer, ...]:
    """Return what ONNX Runtime executes, in its order, with the seconds of each; see `time_network`."""
    return time_network(onnx_path, batch, threads=threads, repeats=repeats).layers


def time_network(onnx_path: Path, batch: int, *, threads: int = 1, repeats: int = REPEATS) -> TimedRun:
    """Time a network as the engine `onnxruntime` serves it, with all its optimisations.

    A layer's time begins when the one before it has ended, with the caches as that left them.

    Args:
        onnx_path: the network; external data beside it.
        batch: images to a batch.
        threads: of one batch.
        repeats: how often the whole network runs, timed, and as often untimed.

    Raises:
        EngineError: the file cannot be used, and why.
    """
    with TemporaryDirectory() as folder:
        given = read_named(onnx_path)
        inputs = make_inputs(given, batch)
        alone = open_on_cpu(onnx_path, cpu_options(threads))
        watched = open_on_cpu(onnx_path, profiling_options(threads, Path(folder)))
        alone_s, watched_s, firsts = _take_turns(alone, watched, inputs, repeats, clock_for(threads))
        profile = read_profile(Path(watched.end_profiling()), skipped=firsts)
        executed = onnx.load(Path(folder, EXECUTED), load_external_data=False)
        layers, unseen = _joined(given, executed, profile)
        return TimedRun(layers, alone_s, watched_s, profile.covered, unseen)


def _take_turns(
    alone: Any,  # noqa: ANN401
    watched: Any,  # noqa: ANN401
    inputs: dict[str, Array],
    repeats: int,
    clock: Callable[[], float],
) -> tuple[float, float, list[int]]:
    """Return the quickest run without and with timing, and which timed ones began a block, on cold caches."""
    each = -(-repeats // _BLOCKS)
    alone_s: list[float] = []
    watched_s: list[float] = []
    for _ in range(_BLOCKS):
        alone_s += _run(alone, inputs, each, clock)
        watched_s += _run(watched, inputs, each, clock)
    return min(alone_s), min(watched_s), [block * (each + 1) for block in range(_BLOCKS)]


def _run(
    session: Any,  # noqa: ANN401
    inputs: dict[str, Array],
    times: int,
    clock: Callable[[], float],
) -> list[float]:
    """Run once to warm up and then `times` times."""
    session.run(None, inputs)
    seconds = []
    for _ in range(times):
        began_s = clock()
        session.run(None, inputs)
        seconds.append(clock() - began_s)
    return seconds


def _joined(
    given: ModelProto, executed: ModelProto, profile: Profile
) -> tuple[tuple[TimedLayer, ...], tuple[str, ...]]:
    """Return the layers, and the nodes that none of them is known to do."""
    origins, operators = find_origins(given, executed), operators_of(given)
    layers = []
    for node in profile.nodes:
        fused = origins.nodes.get(node.name, ())
        name = main_node(fused, operators) if fused else node.name
        layers.append(TimedLayer(name, node.operator, quickest_quarter(node.seconds), fused))
    return tuple(layers), origins.unseen
