"""From an ONNX file to a running TensorRT engine: the plan, checked against the graph, and its buffers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from server.engines.cuda.device import Cuda, on_gpu
from server.engines.cuda.lane import make_lane
from server.engines.cuda.pycuda_device import open_cuda
from server.engines.engine import TensorSpec
from server.engines.graph_specs import read_graph_specs
from server.engines.padding import check_served_batches, default_served_batches
from server.engines.slots import largest_batch
from server.engines.tensorrt.build_progress import logged_progress
from server.engines.tensorrt.builder import BuildOptions, BuildRequest
from server.engines.tensorrt.engine import Network, TensorRtEngine, release
from server.engines.tensorrt.execution_contexts import Kernels, make_contexts
from server.engines.tensorrt.messages import messages_of
from server.engines.tensorrt.parsing import DATATYPES
from server.engines.tensorrt.plan_cache import PlanCache
from server.engines.tensorrt.plan_key import GpuIdentity
from server.engines.tensorrt.plans import IfMissing, obtain_plan
from server.engines.tensorrt.profile_run import ProfileRun
from server.engines.tensorrt.profiles import batch_shape
from server.engines.tensorrt.toolkit import TENSORRT, TENSORRT_RTX, Toolkit, load_toolkit
from server.errors import EngineError

LANES = 2
"""Batches under way at once: one is computed while the next one is uploaded."""

_LOG = logging.getLogger(__name__)


def load_tensorrt_engine(
    onnx_path: Path,
    *,
    toolkit: str = TENSORRT,
    max_batch: int | None = None,
    served_batches: tuple[int, ...] = (),
    device_index: int = 0,
    cache_dir: Path | None = None,
    if_missing: IfMissing = IfMissing.BUILD,
    options: BuildOptions | None = None,
    open_device: Callable[[int], Cuda] = open_cuda,
    find_toolkit: Callable[[str], Toolkit] = load_toolkit,
) -> TensorRtEngine:
    """Load an ONNX file; build its plan first unless the cache has it, which takes up to minutes.

    Args:
        onnx_path: the network; external data beside it. The precision is the file's.
        toolkit: `TENSORRT` or `TENSORRT_RTX`.
        max_batch: largest batch in images; None: `slots.DEFAULT_MAX_BATCH`, less for very large inputs.
        served_batches: sizes that run without padding, ascending to `max_batch`; (): powers of two.
        device_index: which GPU, as CUDA counts.
        cache_dir: where plans are kept; None: nowhere.
        if_missing: whether to build a plan that is not there.
        options: what else changes the plan; None: the defaults.
        open_device: opens a GPU.
        find_toolkit: imports a TensorRT.

    Raises:
        EngineError: it cannot be served, and why.
        CudaLost: the GPU failed for good.
    """
    network = _network(onnx_path, max_batch, served_batches)
    tensorrt = find_toolkit(toolkit)
    cuda = open_device(device_index)
    gpu = GpuIdentity(cuda.name, cuda.capability, cuda.driver)
    request = BuildRequest(onnx_path, network.batches, _aim(tensorrt, gpu), options or BuildOptions())
    cache = None if cache_dir is None else PlanCache(cache_dir)
    with on_gpu(cuda):  # TensorRT times kernels, and unpacks plans, on the GPU that is bound
        progress = logged_progress(str(onnx_path))
        plan = obtain_plan(tensorrt, request, gpu, cache, if_missing=if_missing, on_progress=progress)
        return _start(tensorrt, cuda, gpu, network, plan, cache)


def _network(onnx_path: Path, max_batch: int | None, served_batches: tuple[int, ...]) -> Network:
    specs = read_graph_specs(onnx_path)
    wanted = max_batch or (served_batches[-1] if served_batches else None)
    largest = largest_batch(specs.inputs, wanted, batched=specs.batched)
    batches = served_batches or default_served_batches(largest)
    if batches:
        check_served_batches(batches, largest)
    return Network(specs.inputs, specs.outputs, batches)


def _aim(toolkit: Toolkit, gpu: GpuIdentity) -> tuple[str, ...]:
    """What to build for: TensorRT knows the GPU at hand; TensorRT-RTX is told, and has not all of them."""
    if toolkit.name != TENSORRT_RTX:
        return ()
    if gpu.capability not in toolkit.capabilities:
        known = ", ".join(toolkit.capabilities)
        raise EngineError(
            f"TensorRT-RTX {toolkit.version} runs on {known}; {gpu.name} is {gpu.capability}: "
            "use --engine tensorrt"
        )
    return (gpu.capability,)


def _start(
    toolkit: Toolkit, cuda: Cuda, gpu: GpuIdentity, network: Network, plan: bytes, cache: PlanCache | None
) -> TensorRtEngine:
    exits = ExitStack()
    try:
        return _assembled(toolkit, cuda, gpu, network, plan, cache, exits)
    except BaseException:
        release(cuda, exits)
        raise


def _assembled(
    toolkit: Toolkit,
    cuda: Cuda,
    gpu: GpuIdentity,
    network: Network,
    plan: bytes,
    cache: PlanCache | None,
    exits: ExitStack,
) -> TensorRtEngine:
    messages = messages_of(toolkit.trt)
    unpacked = _unpack(toolkit, plan)
    check_plan(unpacked, network)
    lanes = [make_lane(cuda, network.inputs, network.outputs, network.max_batch, exits) for _ in range(LANES)]
    uploads, compute = cuda.stream(), cuda.stream()
    kept = b"" if cache is None else cache.kernel_times(toolkit, gpu)
    contexts, kernels = make_contexts(toolkit.trt, unpacked, max(1, len(network.batches)), kept)
    exits.callback(kernels.close)
    runs = []
    for index, context in enumerate(contexts):
        shapes = {spec.name: batch_shape(spec, network.batches, index) for spec in network.inputs}
        run = ProfileRun(cuda, context, index, shapes, compute, messages.last_error)
        exits.callback(run.close)
        runs.append(run)
    engine = TensorRtEngine(cuda, network, lanes, runs, (uploads, compute), exits)
    engine.prepare()
    if cache is not None:
        _keep_kernels(cache, toolkit, gpu, kernels)
    return engine


def _unpack(toolkit: Toolkit, plan: bytes) -> Any:  # noqa: ANN401  # the module has no types of its own
    messages = messages_of(toolkit.trt)
    with messages.collecting():
        engine = toolkit.trt.Runtime(messages.logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"TensorRT cannot unpack the plan: {messages.first_error()}")
        return engine


def check_plan(unpacked: Any, network: Network) -> None:  # noqa: ANN401
    """Raise EngineError unless a plan takes and answers what the graph does, in these batch sizes."""
    names = [unpacked.get_tensor_name(index) for index in range(unpacked.num_io_tensors)]
    expected = [spec.name for spec in (*network.inputs, *network.outputs)]
    if sorted(names) != sorted(expected):
        raise EngineError(f"the plan has the tensors {', '.join(names)}, the graph {', '.join(expected)}")
    for spec in (*network.inputs, *network.outputs):
        _check_tensor(unpacked, spec, batched=bool(network.batches))
    profiles = max(1, len(network.batches))
    if unpacked.num_optimization_profiles != profiles:
        found = unpacked.num_optimization_profiles
        raise EngineError(f"the plan was built for {found} batch sizes, {profiles} are to be served")


def _check_tensor(unpacked: Any, spec: TensorSpec, *, batched: bool) -> None:  # noqa: ANN401
    datatype = DATATYPES.get(unpacked.get_tensor_dtype(spec.name).name)
    shape = tuple(unpacked.get_tensor_shape(spec.name))
    if datatype != spec.datatype or shape[int(batched) :] != spec.shape:
        expected = f"{spec.datatype} {[*(['batch'] if batched else []), *spec.shape]}"
        raise EngineError(f"the plan has '{spec.name}' as {datatype} {list(shape)}, the graph as {expected}")


def _keep_kernels(cache: PlanCache, toolkit: Toolkit, gpu: GpuIdentity, kernels: Kernels) -> None:
    try:
        compiled = kernels.serialized()
        if compiled:
            cache.keep_kernel_times(toolkit, gpu, compiled)
    except EngineError as error:
        _LOG.warning("compiled kernels are not kept: %s", error)
