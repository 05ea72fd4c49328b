"""Which engines can be timed layer by layer, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from bench.layers.timed import TimedRun
from server.engines.registry import engine_kind
from server.errors import EngineError


class Timer(Protocol):
    """Times a network layer by layer on an engine. Raises EngineError where it cannot, and says why."""

    def __call__(self, onnx_path: Path, batch: int, *, threads: int, repeats: int) -> TimedRun:
        """Run the network `repeats` times, timed, and as often untimed."""


def timer_of(engine: str, device_index: int = 0) -> Timer:
    """Return what times an engine, on that GPU where it runs on one.

    Raises:
        EngineError: it is not installed, or runs nowhere here.
    """
    kind = engine_kind(engine)
    if (reason := kind.available()) is not None:
        raise EngineError(reason)
    return TIMERS[engine](device_index)


def runs_on_gpu(engine: str, device_index: int = 0) -> bool:
    """Whether an engine that is installed runs on that GPU here, and not on the CPU."""
    where = engine_kind(engine).where
    if where != "either":
        return where == "gpu"
    from server.engines.pytorch.engine import best_device

    return best_device(device_index) != "cpu"


def _onnxruntime(_device_index: int) -> Timer:
    from bench.layers.timing import time_network

    return time_network


def _pytorch(device_index: int) -> Timer:
    from bench.layers.pytorch_timing import time_network

    return partial(time_network, device_index=device_index)


def _tensorrt(toolkit: str) -> Callable[[int], Timer]:
    def load(device_index: int) -> Timer:
        from bench.layers.tensorrt_timing import time_network

        return partial(time_network, toolkit=toolkit, device_index=device_index)

    return load


TIMERS: Mapping[str, Callable[[int], Timer]] = MappingProxyType(
    {
        "onnxruntime": _onnxruntime,
        "pytorch": _pytorch,
        "tensorrt": _tensorrt("tensorrt"),
        "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
    }
)
"""Loaders by the engine's name, each told which GPU; no framework is imported but the one asked for."""
