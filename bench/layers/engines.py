"""Which engines can be timed layer by layer, and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def timer_of(engine: str) -> Timer:
    """Return what times an engine. Raises EngineError for one that is not installed, or runs nowhere here."""
    kind = engine_kind(engine)
    if (reason := kind.available()) is not None:
        raise EngineError(reason)
    return TIMERS[engine]()


def _onnxruntime() -> Timer:
    from bench.layers.timing import time_network

    return time_network


def _pytorch() -> Timer:
    from bench.layers.pytorch_timing import time_network

    return time_network


def _tensorrt(toolkit: str) -> Callable[[], Timer]:
    def load() -> Timer:
        from bench.layers.tensorrt_timing import timer

        return timer(toolkit)

    return load


TIMERS: Mapping[str, Callable[[], Timer]] = MappingProxyType(
    {
        "onnxruntime": _onnxruntime,
        "pytorch": _pytorch,
        "tensorrt": _tensorrt("tensorrt"),
        "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
    }
)
"""Loaders by the engine's name, so that no framework is imported but the one asked for."""
