"""From a request to a plan: out of the cache where it has one, else built and kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from server.engines.tensorrt.build_progress import OnProgress
from server.engines.tensorrt.builder import BuildRequest, Built, build_plan
from server.engines.tensorrt.plan_cache import PlanCache
from server.engines.tensorrt.plan_key import GpuIdentity, PlanKey, plan_key
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError

TURING = "SM75"

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
    if cache is None:
        _refuse_to_build(if_missing, request, gpu, "there is no plan cache")
        return _build(toolkit, request, b"", on_progress).plan
    key = plan_key(toolkit, request, gpu)  # reads all weights: once
    plan = _kept(cache, model_name(request), key)
    if plan is None:
        _refuse_to_build(if_missing, request, gpu, f"{cache.directory} holds no plan")
        built = _build(toolkit, request, cache.kernel_times(toolkit, gpu), on_progress)
        _keep(cache, model_name(request), key, built, toolkit)
        plan = built.plan
    return plan


def model_name(request: BuildRequest) -> str:
    """The model's name in the repository, or the file's outside of one."""
    path = request.onnx_path.absolute()
    return path.parents[1].name if path.stem == "model" and path.parent.name.isdigit() else path.stem


def portable_groups(capabilities: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Divide compute capabilities into those that one plan serves without loss.

    TensorRT-RTX settles on kernels when a plan runs, so that one for several kinds of GPU takes no longer to
    build than one for one; NVIDIA warns that plans which run on Turing as well are slower elsewhere.
    """
    groups = (
        [name for name in capabilities if name != TURING],
        [name for name in capabilities if name == TURING],
    )
    return tuple(tuple(group) for group in groups if group)


def build_for(
    toolkit: Toolkit,
    request: BuildRequest,
    capabilities: Sequence[str],
    cache: PlanCache,
    on_progress: OnProgress,
) -> tuple[Path, ...]:
    """Build one plan for any GPU of some capabilities, unless it is kept already; return where it is kept.

    Returns:
        A file for each capability, in their order.

    Raises:
        EngineError: it cannot be built or written.
    """
    model, key = model_name(request), plan_key(toolkit, request, GpuIdentity("", "", ""))
    keys = [replace(key, gpu=GpuIdentity("", capability, "")) for capability in capabilities]
    missing = [key for key in keys if cache.plan(model, key) is None]
    if missing:
        aimed = replace(request, capabilities=tuple(key.gpu.capability for key in missing))
        plan = build_plan(toolkit, aimed, on_progress=on_progress).plan
        for key in missing:
            cache.keep_plan(model, key, plan)
    return tuple(cache.path(model, key) for key in keys)


def _kept(cache: PlanCache, model: str, key: PlanKey) -> bytes | None:
    plan = cache.plan(model, key)
    return cache.plan(model, replace(key, gpu=key.gpu.any_such)) if plan is None else plan


def _refuse_to_build(if_missing: IfMissing, request: BuildRequest, gpu: GpuIdentity, why: str) -> None:
    if if_missing is IfMissing.REFUSE:
        shown = f"{gpu.name} ({gpu.capability})"
        raise EngineError(f"{why} for {request.onnx_path} on {shown}: make one with `boulton build`")


def _build(toolkit: Toolkit, request: BuildRequest, kernel_times: bytes, on_progress: OnProgress) -> Built:
    _LOG.info("building %s with %s %s", request.onnx_path, toolkit.name, toolkit.version)
    return build_plan(toolkit, request, kernel_times, on_progress)


def _keep(cache: PlanCache, model: str, key: PlanKey, built: Built, toolkit: Toolkit) -> None:
    try:
        cache.keep_plan(model, key, built.plan)
        if built.timing_cache:
            cache.keep_kernel_times(toolkit, key.gpu, built.timing_cache)
    except EngineError as error:  # a plan in hand is worth more than one on disk
        _LOG.warning("the plan is not kept: %s", error)
