"""From a request to a plan: out of the cache where it has one, else built and kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from enum import Enum

from server.engines.tensorrt.build_progress import OnProgress
from server.engines.tensorrt.builder import BuildRequest, build_plan
from server.engines.tensorrt.plan_cache import PlanCache
from server.engines.tensorrt.plan_key import GpuIdentity, plan_key
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError

_LOG = logging.getLogger(__name__)


class IfMissing(Enum):
    """What to do about a plan that the cache lacks, or holds damaged."""

    BUILD = "build"
    REFUSE = "refuse"


def obtain_plan(
    toolkit: Toolkit,
    request: BuildRequest,
    gpu: GpuIdentity,
    cache: PlanCache | None,
    *,
    if_missing: IfMissing = IfMissing.BUILD,
    on_progress: OnProgress = lambda _share, _phase: True,
) -> bytes:
    """Return a plan for a GPU.

    One made for this very GPU is preferred to one that `boulton build` made for any of its capability.

    Args:
        toolkit: which TensorRT.
        request: what to build.
        gpu: what it shall run on.
        cache: where plans are kept; None: nowhere.
        if_missing: whether to build what is not there.
        on_progress: told how far a build is; returning False ends it.

    Raises:
        EngineError: it is not there and must not or cannot be built.
    """
    model = model_name(request)
    for kept_for in (gpu, gpu.any_such):
        plan = None if cache is None else cache.plan(model, plan_key(toolkit, request, kept_for))
        if plan is not None:
            return plan
    if if_missing is IfMissing.REFUSE:
        where = "there is no plan cache" if cache is None else f"{cache.directory} holds no plan"
        raise EngineError(f"{where} for {request.onnx_path} on {_shown(gpu)}: make one with `boulton build`")
    return _build_and_keep(toolkit, request, gpu, cache, on_progress)


def model_name(request: BuildRequest) -> str:
    """The model's name in the repository, or the file's outside of one."""
    path = request.onnx_path.absolute()
    return path.parents[1].name if path.stem == "model" and path.parent.name.isdigit() else path.stem


def _build_and_keep(
    toolkit: Toolkit,
    request: BuildRequest,
    gpu: GpuIdentity,
    cache: PlanCache | None,
    on_progress: OnProgress,
) -> bytes:
    times = b"" if cache is None else cache.kernel_times(toolkit, gpu)
    _LOG.info("building %s with %s %s", request.onnx_path, toolkit.name, toolkit.version)
    built = build_plan(toolkit, request, times, on_progress)
    if cache is not None:
        try:
            cache.keep_plan(model_name(request), plan_key(toolkit, request, gpu), built.plan)
            if built.timing_cache:
                cache.keep_kernel_times(toolkit, gpu, built.timing_cache)
        except EngineError as error:  # a plan in hand is worth more than one on disk
            _LOG.warning("the plan is not kept: %s", error)
    return built.plan


def build_for(
    toolkit: Toolkit, request: BuildRequest, capability: str, cache: PlanCache, on_progress: OnProgress
) -> str:
    """Build for any GPU of a capability, whatever is kept already, and return where it is kept.

    Raises:
        EngineError: it cannot be built or written.
    """
    aimed = replace(request, capability=capability)
    plan = build_plan(toolkit, aimed, on_progress=on_progress).plan
    key = plan_key(toolkit, request, GpuIdentity("", capability, ""))
    return str(cache.keep_plan(model_name(request), key, plan))


def _shown(gpu: GpuIdentity) -> str:
    return f"{gpu.name} ({gpu.capability})" if gpu.name else gpu.capability
