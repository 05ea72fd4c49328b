"""Execution contexts, one for each profile, and the kernels that TensorRT-RTX compiles for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.errors import EngineError


def make_contexts(
    trt: Any,  # noqa: ANN401  # the module has no types of its own
    engine: Any,  # noqa: ANN401
    count: int,
    compiled: bytes,
) -> tuple[list[Any], Callable[[], bytes]]:
    """Make contexts of an unpacked plan.

    Args:
        trt: the TensorRT module.
        engine: the plan, unpacked.
        count: how many contexts.
        compiled: kernels of an earlier start, for a TensorRT that compiles them when it runs; empty: none.

    Returns:
        The contexts, and what tells the kernels that were compiled by then, b"" where that is not done.

    Raises:
        EngineError: there is not enough memory on the GPU, most likely.
    """
    if hasattr(trt, "IRuntimeCache"):
        config, kernels = _runtime_config(engine, compiled)
        contexts = [engine.create_execution_context(config) for _ in range(count)]
    else:
        contexts, kernels = [engine.create_execution_context() for _ in range(count)], bytes
    if any(context is None for context in contexts):
        raise EngineError(
            "TensorRT makes no execution context; the GPU may be out of memory: lower --max-batch"
        )
    return contexts, kernels


def _runtime_config(engine: Any, compiled: bytes) -> tuple[Any, Callable[[], bytes]]:  # noqa: ANN401
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    if compiled:
        cache.deserialize(compiled)  # what does not fit is refused, and compiled anew
    config.set_runtime_cache(cache)
    return config, lambda: bytes(cache.serialize())
