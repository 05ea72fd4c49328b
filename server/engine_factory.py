"""Which engine runs a model, and on which device: what `--engine` and its companions mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import Gpu
from optimizer.devices.simulated import SimulatedGpu
from optimizer.settings_table import SettingsError
from optimizer.twin.profile import GpuProfile, load_profile
from server.config import AUTO, Settings
from server.devices.choice import choose_device
from server.devices.served import ServedDevice
from server.engines.engine import Engine
from server.engines.graph_specs import read_graph_specs
from server.engines.registry import EngineRequest, engine_kind
from server.engines.simulated import Executor, SimulatedEngine
from server.engines.slots import DEFAULT_MAX_BATCH
from server.errors import ConfigError, EngineError
from server.governing.keeping import default_directory
from server.models.repository import ModelEntry


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """Makes engines for one device.

    Args:
        served: what executes all of them.
        make: turns a model on disk into an engine; slow; raises `EngineError`.
    """

    served: ServedDevice
    make: Callable[[ModelEntry], Engine]

    @property
    def device(self) -> Gpu:
        """What executes all engines, as the governor sees it."""
        return self.served.gpu


def engine_factory(settings: Settings, clock: Callable[[], float] = time.monotonic) -> EngineFactory:
    """Read what the settings name. Raises `ConfigError` for a profile or a device that cannot be used."""
    if settings.engine == "simulated":
        return _simulated(settings, clock) if settings.device == AUTO else _rehearsal(settings)
    if settings.cuda_shared_memory and find_spec("pycuda") is None:
        raise ConfigError("--cuda-shared-memory needs the module pycuda: pip install 'boulton[gpu]'")
    kind = engine_kind(settings.engine)
    served = choose_device(settings, kind.where)
    return EngineFactory(served, lambda entry: kind.load(_request(settings, entry)))


def device_note(device: Gpu) -> str:
    """What an operator must know about a device's figures, once it has been read; empty: nothing."""
    if device.simulated:
        return f"{device.uuid} is simulated: times and energy are modelled, and all answers are zeros"
    if isinstance(device, RaplCpu) and device.why_not_measured:
        return f"energy is not measured: {device.why_not_measured}"
    return ""


def _request(settings: Settings, entry: ModelEntry) -> EngineRequest:
    largest = _max_batch(settings, entry)
    sizes = _served_batches(settings, entry, largest)
    return EngineRequest(
        onnx_path=entry.onnx_path,
        max_batch=sizes[-1] if sizes else largest,
        threads=settings.threads,
        served_batches=sizes,
        cache_dir=(settings.state_dir or default_directory()) / "engines",
        build_missing=settings.missing_plan == "build",
    )


def _served_batches(settings: Settings, entry: ModelEntry, largest: int | None) -> tuple[int, ...]:
    """The sizes of `--served-batches` that the model allows; its own limit, where less, is the last one."""
    sizes = settings.served_batches
    if not sizes or not read_graph_specs(entry.onnx_path).batched:
        return ()
    last = min(sizes[-1], largest or sizes[-1])
    return (*(size for size in sizes if size < last), last)


def _max_batch(settings: Settings, entry: ModelEntry) -> int | None:
    """The smaller of the two limits; `--max-batch` says nothing about a network without a batch dimension."""
    if settings.max_batch is None or not read_graph_specs(entry.onnx_path).batched:
        return entry.max_batch
    return min(settings.max_batch, entry.max_batch or settings.max_batch)


def _simulated(settings: Settings, clock: Callable[[], float]) -> EngineFactory:
    profile = _profile(settings)
    gpu = SimulatedGpu(profile, clock=clock, rng_seed=settings.seed)
    return EngineFactory(ServedDevice(gpu), _simulated_engines(settings, profile, gpu))


def _rehearsal(settings: Settings) -> EngineFactory:
    """A simulated engine on a card of the stand-in NVML library, which is governed as if it were real."""
    # Whoever has no GPU to govern need not have nvidia-ml-py load its library either.
    from server.devices.rehearsal import rehearse

    profile = _profile(settings)
    served, gpu = rehearse(settings, profile)
    return EngineFactory(served, _simulated_engines(settings, profile, gpu))


def _simulated_engines(
    settings: Settings, profile: GpuProfile, gpu: Executor
) -> Callable[[ModelEntry], Engine]:
    def make(entry: ModelEntry) -> Engine:
        name = settings.simulated_model or entry.name
        _check_model(profile, name, EngineError)
        specs = read_graph_specs(entry.onnx_path)
        largest = _max_batch(settings, entry) or DEFAULT_MAX_BATCH
        return SimulatedEngine(gpu, name, specs.inputs, specs.outputs, largest if specs.batched else 0)

    return make


def _profile(settings: Settings) -> GpuProfile:
    try:
        profile = load_profile(str(settings.gpu))
    except SettingsError as error:
        raise ConfigError(f"--gpu: {error}") from error
    if settings.simulated_model is not None:
        _check_model(profile, settings.simulated_model, ConfigError)
    return profile


def _check_model(profile: GpuProfile, name: str, kind: type[ConfigError | EngineError]) -> None:
    try:
        profile.model(name)
    except KeyError as error:
        raise kind(f"{error.args[0]}; choose one with --simulated-model") from error
