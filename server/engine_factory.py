"""Which engine runs a model, and on which device: what `--engine` and its companions mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import Gpu
from optimizer.devices.simulated import SimulatedGpu
from optimizer.settings_table import SettingsError
from optimizer.twin.profile import GpuProfile, load_profile
from server.config import Settings
from server.engines.engine import Engine
from server.engines.onnxruntime import DEFAULT_MAX_BATCH, load_onnxruntime_engine
from server.engines.simulated import SimulatedEngine, read_graph_specs
from server.errors import ConfigError, EngineError
from server.models.repository import ModelEntry


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """Makes engines for one device.

    Args:
        device: what executes all of them, as the governor sees it.
        make: turns a model on disk into an engine; slow; raises `EngineError`.
    """

    device: Gpu
    make: Callable[[ModelEntry], Engine]


def engine_factory(settings: Settings, clock: Callable[[], float] = time.monotonic) -> EngineFactory:
    """Read what the settings name. Raises `ConfigError` for a profile that cannot be used."""
    if settings.engine == "simulated":
        return _simulated(settings, clock)
    return EngineFactory(RaplCpu(), lambda entry: _onnxruntime(settings, entry))


def device_note(device: Gpu) -> str:
    """What an operator must know about a device's figures, once it has been read; empty: nothing."""
    if device.simulated:
        return f"{device.uuid} is simulated: times and energy are modelled, and all answers are zeros"
    if isinstance(device, RaplCpu) and device.why_not_measured:
        return f"energy is not measured: {device.why_not_measured}"
    return ""


def _onnxruntime(settings: Settings, entry: ModelEntry) -> Engine:
    largest = _max_batch(settings, entry)
    return load_onnxruntime_engine(entry.onnx_path, max_batch=largest, threads=settings.threads or 0)


def _max_batch(settings: Settings, entry: ModelEntry) -> int | None:
    """The smaller of the two limits; `--max-batch` says nothing about a network without a batch dimension."""
    if settings.max_batch is None or not read_graph_specs(entry.onnx_path).batched:
        return entry.max_batch
    return min(settings.max_batch, entry.max_batch or settings.max_batch)


def _simulated(settings: Settings, clock: Callable[[], float]) -> EngineFactory:
    profile = _profile(str(settings.gpu))
    if settings.simulated_model is not None:
        _check_model(profile, settings.simulated_model, ConfigError)
    gpu = SimulatedGpu(profile, clock=clock, rng_seed=settings.seed)

    def make(entry: ModelEntry) -> Engine:
        name = settings.simulated_model or entry.name
        _check_model(profile, name, EngineError)
        specs = read_graph_specs(entry.onnx_path)
        largest = _max_batch(settings, entry) or DEFAULT_MAX_BATCH
        return SimulatedEngine(gpu, name, specs.inputs, specs.outputs, largest if specs.batched else 0)

    return EngineFactory(gpu, make)


def _profile(name: str) -> GpuProfile:
    try:
        return load_profile(name)
    except SettingsError as error:
        raise ConfigError(f"--gpu: {error}") from error


def _check_model(profile: GpuProfile, name: str, kind: type[ConfigError | EngineError]) -> None:
    try:
        profile.model(name)
    except KeyError as error:
        raise kind(f"{error.args[0]}; choose one with --simulated-model") from error
