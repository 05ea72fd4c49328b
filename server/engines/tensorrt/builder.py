"""From an ONNX file to a plan: what TensorRT runs, made for one kind of GPU and certain batch sizes.

Precision belongs to the ONNX file: the network is strongly typed, so an FP16 graph gives FP16 kernels, and
Q/DQ nodes give INT8 ones. The same code drives TensorRT 10.12 and newer, 11, and TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.engines.tensorrt.build_progress import OnProgress, make_monitor
from server.engines.tensorrt.messages import Messages, messages_of
from server.engines.tensorrt.parsing import parse
from server.engines.tensorrt.profiles import add_profiles, check_batches
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError

WORKSPACE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What changes the plan beside the graph, the batches and the GPU.

    Args:
        workspace_bytes: most scratch memory that a kernel may take on the GPU.
        tf32: whether FP32 convolutions may round their inputs to TF32, as frameworks do by default.
        detailed: whether the plan keeps the names of layers, for studies of single layers.
    """

    workspace_bytes: int = WORKSPACE_BYTES
    tf32: bool = True
    detailed: bool = False


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Args:
        onnx_path: the ONNX file, external data beside it.
        batches: batch sizes to serve, one profile each; none where the graph has no batch dimension.
        capabilities: compute capabilities of the GPUs that one plan is for, e.g. SM80; (): the GPU at hand.
        options: the rest.
    """

    onnx_path: Path
    batches: tuple[int, ...]
    capabilities: tuple[str, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and the kernel times that went into it (empty where the toolkit times none)."""

    plan: bytes
    timing_cache: bytes


def build_plan(
    toolkit: Toolkit,
    request: BuildRequest,
    timing_cache: bytes = b"",
    on_progress: OnProgress = lambda _share, _phase: True,
) -> Built:
    """Build; takes from tenths of a second (TensorRT-RTX) to minutes.

    Args:
        toolkit: which TensorRT.
        request: what to build.
        timing_cache: kernel times of earlier builds on the same GPU; damaged or foreign ones are ignored.
        on_progress: told how far it is; returning False ends the build.

    Raises:
        EngineError: it cannot be built: which operator, datatype, shape or setting, and what to do.
    """
    messages = messages_of(toolkit.trt)
    with messages.collecting():
        try:
            return _build(toolkit, messages, request, timing_cache, on_progress)
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:  # what the bindings raise
            raise EngineError(f"{request.onnx_path} cannot be built: {error}") from error


def _build(
    toolkit: Toolkit, messages: Messages, request: BuildRequest, timing_cache: bytes, on_progress: OnProgress
) -> Built:
    trt = toolkit.trt
    builder = trt.Builder(messages.logger)
    network = builder.create_network(_network_flags(trt))
    specs = parse(trt, messages, network, request.onnx_path)
    batches = check_batches(request.batches, batched=specs.batched)
    config = builder.create_builder_config()
    _configure(trt, config, request.options)
    _aim(toolkit, config, request.capabilities)
    add_profiles(builder, config, specs, batches)
    if toolkit.timing_cache:
        _use_kernel_times(config, timing_cache)
    monitor = make_monitor(trt, on_progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{request.onnx_path} cannot be built: {_advice(messages.first_error(), request)}")
    return Built(bytes(plan), _kernel_times(config) if toolkit.timing_cache else b"")


def _network_flags(trt: Any) -> int:  # noqa: ANN401
    """Strongly typed where that is still a choice; version 11 knows nothing else."""
    flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
    flag = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:  # noqa: ANN401
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def _aim(toolkit: Toolkit, config: Any, capabilities: Sequence[str]) -> None:  # noqa: ANN401
    """Build for GPUs that need not be here."""
    unknown = [name for name in capabilities if name not in toolkit.capabilities]
    if unknown:
        allowed = ", ".join(toolkit.capabilities) or "only the GPU at hand"
        raise EngineError(
            f"{toolkit.name} {toolkit.version} cannot build for {unknown[0]}; it builds for {allowed}"
        )
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        if not config.set_compute_capability(toolkit.trt.ComputeCapability.__members__[name], index):
            raise EngineError(
                f"{toolkit.name} {toolkit.version} refuses to build for {', '.join(capabilities)}"
            )


def _advice(reason: str, request: BuildRequest) -> str:
    if "workspace" in reason:
        limit = request.options.workspace_bytes >> 20
        return f"{reason}; {limit} MiB of workspace are allowed: allow more (--workspace-mib)"
    if "driver version is insufficient" in reason or "no CUDA-capable device" in reason:
        return f"{reason}; without a GPU, build with TensorRT-RTX (--rtx) for a named one (--for)"
    return reason


def _use_kernel_times(config: Any, times: bytes) -> None:  # noqa: ANN401
    """Start from earlier times, unless they are damaged or another GPU's: then from none."""
    for kept in dict.fromkeys((times, b"")):
        cache = config.create_timing_cache(kept)
        if cache is not None and config.set_timing_cache(cache, False):  # False: another GPU's are refused
            return


def _kernel_times(config: Any) -> bytes:  # noqa: ANN401
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())
