"""Execution contexts, one for each profile, and the kernels that TensorRT-RTX compiles for the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.errors import EngineError


@dataclass(slots=True)
class Kernels:
    """The kernels that contexts compile when they run, where they do; kept for as long as the contexts are.

    Args:
        config: what the contexts were made with.
        cache: TensorRT's cache of kernels; None: nothing is compiled.
    """

    config: Any = None
    cache: Any = None

    def serialized(self) -> bytes:
        """Those compiled by now; empty: none."""
        return b"" if self.cache is None else bytes(self.cache.serialize())

    def close(self) -> None:
        """Give them back, after the contexts."""
        self.config = self.cache = None


def make_contexts(
    trt: Any,  # noqa: ANN401  # the module has no types of its own
    engine: Any,  # noqa: ANN401
    count: int,
    compiled: bytes,
) -> tuple[list[Any], Kernels]:
    """Make contexts of an unpacked plan. Each reserves scratch memory when it is told its profile.

    Args:
        trt: the TensorRT module.
        engine: the plan, unpacked.
        count: how many contexts.
        compiled: kernels of an earlier start, for a TensorRT that compiles them when it runs; empty: none.

    Returns:
        The contexts, and their kernels.

    Raises:
        EngineError: there is not enough memory on the GPU, most likely.
    """
    # Otherwise every context would reserve what the largest of all profiles needs.
    allocation = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    kernels = Kernels()
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):  # TensorRT-RTX alone compiles when it runs
        kernels = _compiling(trt, engine, compiled, allocation)
    contexts = [engine.create_execution_context(kernels.config or allocation) for _ in range(count)]
    if any(context is None for context in contexts):
        raise EngineError(
            "TensorRT makes no execution context; the GPU may be out of memory: lower --max-batch"
        )
    return contexts, kernels


def _compiling(trt: Any, engine: Any, compiled: bytes, allocation: Any) -> Kernels:  # noqa: ANN401
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(allocation)
    # Compiled before the first run ends: a CUDA graph would go on with what stands in for them until then.
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    cache = config.create_runtime_cache()
    if compiled:
        cache.deserialize(compiled)  # what does not fit is refused, and compiled anew
    config.set_runtime_cache(cache)
    return Kernels(config, cache)
