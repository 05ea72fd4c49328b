"""The engines whose overhead is measured, each with stopwatches around the framework's own run.

The run goes from arrays to arrays with every framework. ONNX Runtime's `run` answers arrays; PyTorch's module
answers tensors, and the call that turns one into an array is the framework's as well, and counts as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.engines.stopwatch import Stopwatch
from server.engines.engine import Array, Engine
from server.engines.padding import padded
from server.engines.registry import ENGINE_KINDS

CLOCK = time.thread_time
"""Processor time of the calling thread, in seconds; the frameworks get no other thread."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine, and its framework alone.

    Args:
        engine: takes any batch.
        inside: the stopwatches around the framework's run within it.
        bare: makes a call of the framework on some images, through the same stopwatches, without the engine.
    """

    engine: Engine
    inside: tuple[Stopwatch[..., Any], ...]
    bare: Callable[[Array], Callable[[], object]]


class _TimedSession:
    """A session of ONNX Runtime whose runs are timed."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - onnxruntime has no types
        self._session = session
        self.run = Stopwatch(session.run, CLOCK)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._session, name)


def onnxruntime(path: Path, max_batch: int, served_batches: tuple[int, ...]) -> Subject:
    """ONNX Runtime on the CPU."""
    import onnxruntime as framework

    from server.engines.onnxruntime import OnnxRuntimeEngine, load_onnxruntime_engine
    from server.engines.onnxruntime_providers import CPU

    specs = load_onnxruntime_engine(path, max_batch=max_batch)
    options = framework.SessionOptions()
    options.intra_op_num_threads = 1
    session = _TimedSession(framework.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    engine = OnnxRuntimeEngine(session, specs.inputs, specs.outputs, max_batch, CPU, served_batches)
    specs.close()

    def bare(images: Array) -> Callable[[], object]:
        names, feed = [spec.name for spec in specs.outputs], {specs.inputs[0].name: images}
        return lambda: session.run(names, feed)

    return Subject(padded(engine), (session.run,), bare)


def pytorch(path: Path, max_batch: int, served_batches: tuple[int, ...]) -> Subject:
    """PyTorch, operator by operator, on the CPU."""
    import torch

    from server.engines.graph_specs import read_graph_specs
    from server.engines.pytorch.engine import PyTorchEngine
    from server.engines.pytorch.graph import load_module
    from server.engines.pytorch.memory import Slots
    from server.engines.pytorch.runners import Eager

    specs = read_graph_specs(path)
    run = Stopwatch(Eager(load_module(path).to(memory_format=torch.channels_last)), CLOCK)
    slots = Slots(specs.inputs, specs.outputs, max_batch, torch.device("cpu"))
    slots.to_host = to_host = Stopwatch(slots.to_host, CLOCK)

    def bare(images: Array) -> Callable[[], object]:
        tensor = torch.from_numpy(images)
        return lambda: tuple(map(to_host, run(tensor)))

    return Subject(padded(PyTorchEngine(slots, {0: run}, served_batches, 1, "eager")), (run, to_host), bare)


SUBJECTS: Mapping[str, Callable[[Path, int, tuple[int, ...]], Subject]] = MappingProxyType(
    {"onnxruntime": onnxruntime, "pytorch": pytorch}
)


def missing() -> dict[str, str]:
    """Subjects that cannot run here, and why."""
    reasons = {name: ENGINE_KINDS[name].available() for name in SUBJECTS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def framework_versions() -> dict[str, str]:
    """The versions of what the subjects run on, by the package's name."""
    modules = (module for name in SUBJECTS.keys() - missing().keys() for module in ENGINE_KINDS[name].modules)
    return {module: str(import_module(module).__version__) for module in sorted(modules)}
