"""PyTorch, operator by operator, timed node by node; on a GPU by CUDA's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from bench.layers.inputs import make_inputs
from bench.layers.origin import operators_of
from bench.layers.reading import read_named
from bench.layers.timed import TimedLayer, TimedRun, clock_for, quickest_quarter
from server.engines.pytorch.engine import best_device
from server.engines.pytorch.graph import load_module
from server.engines.pytorch.operands import origin_of

_BLOCKS = 5


class Stopwatch(Protocol):
    """Marks moments on a device."""

    def mark(self) -> Any:  # noqa: ANN401 - a device's own
        """Take a moment, behind what the device was told to do so far."""

    def between(self, first: Any, last: Any) -> float:  # noqa: ANN401
        """Return the seconds between two moments that have passed."""

    def wait(self) -> None:
        """Wait for all moments to pass."""


class HostClock:
    """For the CPU, where a call returns when its work is done."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def mark(self) -> float:
        """Now."""
        return self._clock()

    def between(self, first: float, last: float) -> float:
        """The difference."""
        return last - first

    def wait(self) -> None:
        """Nothing is under way."""


class CudaClock:
    """For a GPU, whose work is queued."""

    def mark(self) -> Any:  # noqa: ANN401
        """Queue a mark."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, last: Any) -> float:  # noqa: ANN401
        """Seconds on the GPU."""
        return float(first.elapsed_time(last)) / 1e3

    def wait(self) -> None:
        """Until the GPU has done all."""
        torch.cuda.synchronize()


def time_network(
    onnx_path: Path, batch: int, *, threads: int, repeats: int, device_index: int = 0
) -> TimedRun:
    """Time a network as the engine `pytorch` runs it: nothing is fused, each node of the graph is a layer.

    On a GPU the time of a layer is that of its kernels and of the gaps in which the GPU waits for them.

    Args:
        onnx_path: the network; external data beside it.
        batch: images to a batch.
        threads: CPU threads of one batch.
        repeats: how often the network runs, timed, and as often untimed.
        device_index: which GPU, where PyTorch sees any.

    Raises:
        EngineError: the file cannot be used, or there is no such GPU.
    """
    torch.set_num_threads(threads)
    device = torch.device(best_device(device_index))
    given = read_named(onnx_path)
    module = load_module(onnx_path).to(device, memory_format=torch.channels_last)
    inputs = [torch.from_numpy(array).to(device) for array in make_inputs(given, batch).values()]
    clock = HostClock(clock_for(threads)) if device.type == "cpu" else CudaClock()
    # Marks go to the stream of the device that is current, not of the one that the weights are on.
    current = nullcontext() if device.type == "cpu" else torch.cuda.device(device)
    with torch.inference_mode(), current:
        alone_s, watched = _take_turns(module, inputs, clock, -(-repeats // _BLOCKS))
    return _joined(watched, alone_s, operators_of(given))


class _Watched:
    """A copy of a module, with the same weights, that takes a mark before and after each of its calls."""

    def __init__(self, module: fx.GraphModule, clock: Stopwatch) -> None:
        self.marks: list[tuple[str, Any, Any]] = []
        graph = fx.Graph()
        graph.output(graph.graph_copy(module.graph, {}))
        for place, node in enumerate(graph.nodes):
            if node.op == "call_function":
                node.target = self._marked(node.target, origin_of(node), place, clock)
        self.run = fx.GraphModule(module, graph)

    def _marked(
        self, call: Callable[..., Any], origin: str, place: int, clock: Stopwatch
    ) -> Callable[..., Any]:
        def marked(*args: object, **named: object) -> Any:  # noqa: ANN401
            before = clock.mark()
            answer = call(*args, **named)
            self.marks.append((origin, before, clock.mark()))
            return answer

        marked.__name__ = f"marked_{place}"  # calls are known by name in the code that is made of the graph
        return marked


class _Watch:
    """What was measured of the timed runs.

    Args:
        nodes: seconds of each node of the graph, run by run.
        runs_s: whole runs.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, list[float]] = {}
        self.runs_s: list[float] = []

    def add(self, marks: list[tuple[str, Any, Any]], clock: Stopwatch, run_s: float) -> None:
        """Take in a run: a node may be several calls, and what belongs to no node is left out."""
        seconds: dict[str, float] = {}
        for origin, before, after in marks:
            if origin:
                seconds[origin] = seconds.get(origin, 0.0) + clock.between(before, after)
        for origin, taken_s in seconds.items():
            self.nodes.setdefault(origin, []).append(taken_s)
        self.runs_s.append(run_s)

    @property
    def covered(self) -> float:
        """The nodes' part of a run: its median over the runs."""
        inside_s = np.sum(list(self.nodes.values()), axis=0)
        return float(np.median(inside_s / np.asarray(self.runs_s)))


def _take_turns(
    module: fx.GraphModule, inputs: list[Tensor], clock: Stopwatch, each: int
) -> tuple[float, _Watch]:
    """Run untimed and timed in turns; return the seconds of the quickest untimed run, and the timed ones."""
    watched, watch, alone_s = _Watched(module, clock), _Watch(), []
    for _ in range(_BLOCKS):
        _run(module, inputs, clock)
        alone_s += [_run(module, inputs, clock) for _ in range(each)]
        _run(watched.run, inputs, clock)
        for _ in range(each):
            watched.marks.clear()
            run_s = _run(watched.run, inputs, clock)
            watch.add(watched.marks, clock, run_s)
    return min(alone_s), watch


def _run(module: fx.GraphModule, inputs: list[Tensor], clock: Stopwatch) -> float:
    before = clock.mark()
    module(*inputs)
    after = clock.mark()
    clock.wait()
    return clock.between(before, after)


def _joined(watch: _Watch, alone_s: float, operators: Mapping[str, str]) -> TimedRun:
    layers = tuple(
        TimedLayer(name, operators[name], quickest_quarter(seconds), (name,))
        for name, seconds in watch.nodes.items()
    )
    unseen = tuple(name for name in operators if name not in watch.nodes)
    return TimedRun(layers, alone_s, min(watch.runs_s), watch.covered, unseen)
