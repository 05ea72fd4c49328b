"""The engine and the processor that a calibration measures, and the processor's energy counter if any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from bench.compare.energy import Meters, idle_w
from bench.compare.engines import versions_of
from bench.layers.engines import runs_on_gpu, timer_of
from bench.predict import engine_steps, measuring
from bench.predict.metering import Measurer, Metering, with_energy
from bench.serving.machine import this_machine
from bench.undisturbed import USUAL, Core, Patience
from optimizer.layers.dataset import MeasuredNetwork

NOT_MEASURED = "not measured"
_REPEATS = 20
_FINEST = "onnxruntime"
"""Its steps are timed by `measuring`, which takes more care of what others do on the machine."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure.

    Args:
        engine: its name.
        device_index: which GPU, where it runs on one.
        energy_s: for how long a network is repeated to measure its energy, at least; None: not at all.
    """

    engine: str
    device_index: int = 0
    energy_s: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """What measures networks here.

    Args:
        measure: one network.
        provenance: of a dataset that it is measured into.
        notes: why there is no energy; empty where there is.
    """

    measure: Measurer
    provenance: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


@contextmanager
def open_device(wanted: Wanted, patience: Patience = USUAL) -> Iterator[MeasuredDevice]:
    """Make an engine ready. Raises EngineError where it is missing or cannot be timed."""
    measure = _times(wanted, patience)
    on_gpu = runs_on_gpu(wanted.engine, wanted.device_index)
    if wanted.energy_s is None:
        yield MeasuredDevice(measure, _provenance(wanted, None, NOT_MEASURED))
        return
    meters = Meters(wanted.device_index)
    meters.open()
    try:
        yield _metered(wanted, measure, meters, on_gpu=on_gpu)
    finally:
        meters.close()


def _metered(wanted: Wanted, measure: Measurer, meters: Meters, *, on_gpu: bool) -> MeasuredDevice:
    meter, seconds = meters.of(on_gpu=on_gpu), wanted.energy_s or 0.0
    name = meters.gpu_identity.name if on_gpu and meters.gpu_identity else None
    idle = idle_w(meter, seconds) if meter else None
    if meter is None or idle is None:
        own = tuple(note for note in meters.notes if note.startswith("energy of the CPU") is not on_gpu)
        return MeasuredDevice(measure, _provenance(wanted, name, NOT_MEASURED), own)
    source = meter.span(0.0).source
    measured = {
        **_provenance(wanted, name, source),
        "simulated": on_gpu and meters.simulated,
        "idle_w": idle,
        "energy_s": seconds,
        "energy_method": "mean power of batches in a row, idle power included, times a batch's time",
    }
    metering = Metering(meter, wanted.engine, wanted.device_index, idle, seconds)
    return MeasuredDevice(with_energy(measure, metering), measured)


def _times(wanted: Wanted, patience: Patience) -> Measurer:
    timer = timer_of(wanted.engine, wanted.device_index)
    core = Core(patience)

    def carefully(name: str, path: Path, batch: int) -> MeasuredNetwork:
        return measuring.measure(name, path, batch, measuring.Effort(), core)

    def by_profiler(name: str, path: Path, batch: int) -> MeasuredNetwork:
        return engine_steps.measure_on(timer, name, path, batch, _REPEATS)

    return carefully if wanted.engine == _FINEST else by_profiler


def _provenance(wanted: Wanted, gpu: str | None, energy: str) -> dict[str, Any]:
    machine = this_machine()
    versions = {name: each for name, each in versions_of(wanted.engine).items() if name != "boulton"}
    return {
        "simulated": False,
        "device": gpu or machine.cpu,
        "cpu": machine.cpu,
        "engine": ", ".join(f"{name} {each}" for name, each in versions.items()),
        "threads": 1,
        "cores": machine.cores,
        "kernel": machine.kernel,
        "date": date.today().isoformat(),  # noqa: DTZ011  # the day where it was measured
        "method": measuring.METHOD if wanted.engine == _FINEST else engine_steps.METHOD,
        "energy": energy,
    }
