"""The energy of a network's layers on a machine with a counter, by either of the rules of `energy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from bench.layers.cost import LayerCost
from bench.layers.cutting import Cutter
from bench.layers.energy import LayerEnergy, NetworkEnergy, SpanMeter, by_time, meter_network, repeated
from bench.layers.inputs import make_inputs
from server.engines.graph_specs import read_graph_specs
from server.engines.registry import EngineRequest, engine_kind
from server.errors import EngineError
from server.onnx_graph import read_header

OnStep = Callable[[str, int, int], None]
"""Told what is being done, and how far it is: which step, of how many."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What runs: a network, on an engine, in batches of one size, on so many CPU threads."""

    onnx_path: Path
    engine: str
    batch: int
    threads: int


@dataclass(frozen=True, slots=True)
class Metered:
    """Energy of a network and its layers.

    Args:
        network: of the whole; None: not measured.
        layers: of the pieces, in their order; None where it is not known.
        notes: what was not metered, and why.
    """

    network: NetworkEnergy | None
    layers: tuple[LayerEnergy | None, ...]
    notes: tuple[str, ...] = ()

    @property
    def adds_up(self) -> float | None:
        """The layers' energies together over the network's; None where one of them is not known."""
        known = [energy.above_idle_j for energy in self.layers if energy is not None]
        if self.network is None or not known or self.network.above_idle_j <= 0:
            return None
        return sum(known) / self.network.above_idle_j


def unmetered(layers: Sequence[LayerCost], *notes: str) -> Metered:
    """Nothing is known."""
    return Metered(None, (None,) * len(layers), notes)


def meter_whole(
    subject: Subject, layers: Sequence[LayerCost], meter: SpanMeter, seconds: float, on_step: OnStep
) -> Metered:
    """Meter the network for some seconds and divide its energy by the layers' times."""
    network = _network(subject, meter, seconds, on_step)
    if network is None:
        return unmetered(layers, _SILENT)
    return Metered(network, by_time(network, layers))


def meter_each(
    subject: Subject, layers: Sequence[LayerCost], meter: SpanMeter, seconds: float, on_step: OnStep
) -> Metered:
    """Meter the network, and then each layer alone, for some seconds each.

    What the engine added, and what cannot be cut out of the network, stays unknown.
    """
    network = _network(subject, meter, seconds, on_step)
    if network is None:
        return unmetered(layers, _SILENT)
    cutter = Cutter(onnx.load(subject.onnx_path), subject.batch)
    energies: list[LayerEnergy | None] = []
    notes = []
    for place, layer in enumerate(layers):
        on_step(f"repeating {layer.name}", place, len(layers))
        try:
            energies.append(_alone(subject, layer, cutter, meter, network.idle_w, seconds))
        except (EngineError, ValueError) as error:
            energies.append(None)
            notes.append(f"energy of {layer.name}: not measured, it does not run alone: {error}")
    return Metered(network, tuple(energies), tuple(notes))


_SILENT = "the counter gave nothing"


def _network(subject: Subject, meter: SpanMeter, seconds: float, on_step: OnStep) -> NetworkEnergy | None:
    on_step("metering the idle machine", 0, 1)
    idle = meter.span(seconds).power_w
    on_step("metering the network", 0, 1)
    with _running(subject) as run:
        return meter_network(meter, idle, run, seconds)


def _alone(
    subject: Subject, layer: LayerCost, cutter: Cutter, meter: SpanMeter, idle: float, seconds: float
) -> LayerEnergy | None:
    if not layer.layers:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder, "layer.onnx")
        cutter.cut([part.name for part in layer.layers], path)
        with _running(Subject(path, subject.engine, subject.batch, subject.threads)) as run:
            return repeated(meter, idle, run, seconds, layer.seconds)


@contextmanager
def _running(subject: Subject) -> Iterator[Callable[[], None]]:
    """Load a network on its engine as it is served, and yield what runs one batch."""
    largest = subject.batch if read_graph_specs(subject.onnx_path).batched else None
    request = EngineRequest(subject.onnx_path, max_batch=largest, threads=subject.threads)
    engine = engine_kind(subject.engine).load(request)
    try:
        made = make_inputs(read_header(subject.onnx_path), subject.batch)
        inputs = tuple(made[spec.name] for spec in engine.inputs)
        yield lambda: _discard(engine.run(inputs))
    finally:
        engine.close()


def _discard(_answers: object) -> None:
    """Nobody needs the answers."""
