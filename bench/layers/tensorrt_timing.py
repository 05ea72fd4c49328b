"""TensorRT, timed layer by layer through its own profiler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.layers.inputs import make_inputs
from bench.layers.origin import main_node, operators_of
from bench.layers.reading import read_named
from bench.layers.tensorrt_layers import PlanLayer, nodes_in_name, read_plan_layers
from bench.layers.timed import TimedLayer, TimedRun, quickest_quarter
from server.engines.cuda.device import Cuda, on_gpu
from server.engines.cuda.lane import make_lane
from server.engines.cuda.pycuda_device import open_cuda
from server.engines.engine import Array
from server.engines.graph_specs import GraphSpecs, read_graph_specs
from server.engines.slots import into_slots
from server.engines.tensorrt.builder import BuildOptions, BuildRequest, build_plan
from server.engines.tensorrt.execution_contexts import make_contexts
from server.engines.tensorrt.messages import messages_of
from server.engines.tensorrt.profile_run import ProfileRun
from server.engines.tensorrt.toolkit import TENSORRT_RTX, Toolkit, load_toolkit
from server.errors import EngineError

_WARM_UPS = 3


def time_network(
    onnx_path: Path,
    batch: int,
    *,
    threads: int,  # noqa: ARG001 - the GPU does the work
    repeats: int,
    toolkit: str,
    device_index: int = 0,
    open_device: Callable[[int], Cuda] = open_cuda,
    find_toolkit: Callable[[str], Toolkit] = load_toolkit,
) -> TimedRun:
    """Time a network as TensorRT runs it, without CUDA graphs, which would hide the layers.

    The untimed runs come first: the profiler cannot be taken away again.

    Args:
        onnx_path: the network; external data beside it.
        batch: images to a batch.
        threads: of no use here.
        repeats: how often the network runs, timed, and as often untimed.
        toolkit: `tensorrt` or `tensorrt-rtx`.
        device_index: which GPU, as CUDA counts.
        open_device: opens the GPU.
        find_toolkit: imports TensorRT.

    Raises:
        EngineError: the network cannot be built or run, and why.
        CudaLost: the GPU failed for good.
    """
    given = read_named(onnx_path)
    inputs = make_inputs(given, batch)
    operators = operators_of(given)
    specs = read_graph_specs(onnx_path)
    tensorrt, cuda = find_toolkit(toolkit), open_device(device_index)
    with on_gpu(cuda), ExitStack() as exits:
        unpacked = _build(tensorrt, cuda, onnx_path, batch if specs.batched else 0)
        (context,), kernels = make_contexts(tensorrt.trt, unpacked, 1, b"")
        exits.callback(kernels.close)
        run = _runner(tensorrt, cuda, context, specs, batch, inputs, exits)
        alone_s = min(_repeat(run, repeats))
        watch = _Watch()
        profiler = _profiler(tensorrt.trt, watch.add)  # which must live as long as the context
        context.profiler = profiler
        watched_s = _repeat(run, repeats)
        return _joined(watch, alone_s, watched_s, _layers_of(tensorrt.trt, unpacked, operators), operators)


def _build(toolkit: Toolkit, cuda: Cuda, path: Path, batch: int) -> Any:  # noqa: ANN401  # no types there
    aim = (cuda.capability,) if toolkit.name == TENSORRT_RTX else ()
    request = BuildRequest(path, (batch,) if batch else (), aim, BuildOptions(detailed=True))
    plan = build_plan(toolkit, request).plan
    messages = messages_of(toolkit.trt)
    with messages.collecting():
        unpacked = toolkit.trt.Runtime(messages.logger).deserialize_cuda_engine(plan)
        if unpacked is None:
            raise EngineError(f"TensorRT cannot unpack the plan: {messages.first_error()}")
        return unpacked


def _runner(
    toolkit: Toolkit,
    cuda: Cuda,
    context: Any,  # noqa: ANN401
    specs: GraphSpecs,
    batch: int,
    inputs: Mapping[str, Array],
    exits: ExitStack,
) -> Callable[[], None]:
    """Bring the inputs to the GPU, and return what runs one batch there and waits for it."""
    rows = batch if specs.batched else None
    lane = make_lane(cuda, specs.inputs, specs.outputs, rows or 0, exits)
    stream = cuda.stream()
    into_slots(
        lane.slots.buffers, tuple(inputs[spec.name] for spec in specs.inputs), batched=rows is not None
    )
    lane.upload(cuda, rows, stream)
    shapes = {name: array.shape for name, array in inputs.items()}
    explain = messages_of(toolkit.trt).last_error
    run = ProfileRun(cuda, context, 0, shapes, stream, explain, graphs=False)
    exits.callback(run.close)

    def run_batch() -> None:
        run.enqueue(lane.addresses)
        stream.synchronize()

    return run_batch


def _repeat(
    run: Callable[[], None], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    for _ in range(_WARM_UPS):
        run()
    seconds = []
    for _ in range(repeats):
        began_s = clock()
        run()
        seconds.append(clock() - began_s)
    return seconds


def _profiler(trt: Any, report: Callable[[str, float], None]) -> Any:  # noqa: ANN401
    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the bindings call it by its methods
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms / 1e3)

    return Profiler()


class _Watch:
    """Times of the layers, run by run, in the order in which TensorRT first told them."""

    def __init__(self) -> None:
        self.layers: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        """Take in a layer of a run."""
        self.layers.setdefault(name, []).append(seconds)

    def kept(self, runs: int) -> dict[str, list[float]]:
        """Leave out what came before the last so many runs.

        Raises:
            EngineError: a layer was not told once for each run.
        """
        odd = [name for name, seconds in self.layers.items() if len(seconds) != runs + _WARM_UPS]
        if odd or not self.layers:
            told = f"{len(self.layers[odd[0]])} times {odd[0]!r}" if odd else "no layer"
            raise EngineError(f"TensorRT's profiler told of {told} in {runs + _WARM_UPS} runs")
        return {name: seconds[_WARM_UPS:] for name, seconds in self.layers.items()}


def _layers_of(trt: Any, unpacked: Any, operators: Mapping[str, str]) -> dict[str, PlanLayer]:  # noqa: ANN401
    inspector = unpacked.create_engine_inspector()
    information = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return read_plan_layers(information, operators.keys())


def _joined(
    watch: _Watch,
    alone_s: float,
    watched_s: list[float],
    plan: Mapping[str, PlanLayer],
    operators: Mapping[str, str],
) -> TimedRun:
    times = watch.kept(len(watched_s))
    layers = []
    for name, seconds in times.items():
        known = plan.get(name) or PlanLayer("", nodes_in_name(name, operators.keys()))
        shown = main_node(known.nodes, operators) if known.nodes else name
        layers.append(TimedLayer(shown, known.kind or "TensorRT", quickest_quarter(seconds), known.nodes))
    seen = {node for layer in layers for node in layer.fused}
    unseen = tuple(node for node in operators if node not in seen)
    covered = float(np.median(np.sum(list(times.values()), axis=0) / np.asarray(watched_s)))
    return TimedRun(tuple(layers), alone_s, min(watched_s), covered, unseen)
