"""Energy of whole networks while a calibration measures them, from the machine's own counters.

Steps last microseconds and counters tick every 20 to 100 milliseconds: so each network runs over and over for
a second or more, from one tick of the counter to another, and what its steps draw is told apart when a
predictor is fitted (see `optimizer.layers.sharing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from bench.layers.energy import SpanMeter, meter_network
from bench.layers.inputs import make_inputs
from optimizer.layers.dataset import MeasuredNetwork
from server.engines.graph_specs import read_graph_specs
from server.engines.registry import EngineRequest, engine_kind
from server.errors import EngineError

Measurer = Callable[[str, Path, int], MeasuredNetwork]
"""Measures a network, given its name, its file and the batch size."""


@dataclass(frozen=True, slots=True)
class Metering:
    """How energy is measured.

    Args:
        meter: of the processor that the engine runs on.
        engine: its name.
        device_index: which GPU, where it runs on one.
        idle_w: power while nothing ran.
        seconds: for how long each network is repeated, at least.
    """

    meter: SpanMeter
    engine: str
    device_index: int
    idle_w: float
    seconds: float


def with_energy(measure: Measurer, metering: Metering) -> Measurer:
    """Return what measures a network's times as `measure` does, and its energy besides.

    The energy of a batch is the mean power while batches follow each other, idle power included, times the
    time that a batch takes. A counter that fails on the way raises EngineError.
    """

    def metered(name: str, path: Path, batch: int) -> MeasuredNetwork:
        timed = measure(name, path, batch)
        with _running(metering, path, batch) as run:
            found = meter_network(metering.meter, metering.idle_w, run, metering.seconds)
        if found is None:
            raise EngineError(
                f"the energy counter gave nothing while {name} ran: give --energy none and another --dataset"
            )
        return replace(timed, energy_j=found.power_w * timed.run_s)

    return metered


@contextmanager
def _running(metering: Metering, path: Path, batch: int) -> Iterator[Callable[[], None]]:
    """Load a network on its engine as it is served, and yield what runs one batch."""
    largest = batch if read_graph_specs(path).batched else None
    request = EngineRequest(path, max_batch=largest, threads=1, device_index=metering.device_index)
    engine = engine_kind(metering.engine).load(request)
    try:
        made = make_inputs(onnx.load(path, load_external_data=False), batch)
        inputs = tuple(made[spec.name] for spec in engine.inputs)

        def run() -> None:
            engine.run(inputs)

        yield run
    finally:
        engine.close()
