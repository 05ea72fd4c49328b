from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from bench.layers.roofline import Bound, Roofline, measure_roofline
from bench.layers.timed import TimedLayer, TimedRun
from optimizer.layers.count import count_layers_of_file

PEAK, BYTES = 1e12, 1e10


class Machine:
    """Takes as long as its peaks allow, and a fixed time for each layer besides."""

    def __init__(self, overhead_s: float = 0.0) -> None:
        self.overhead_s = overhead_s
        self.datatypes: set[str] = set()

    def __call__(self, path: Path) -> TimedRun:
        onnx.checker.check_model(onnx.load(path))
        layers = count_layers_of_file(path)
        self.datatypes |= {layer.outputs[0].datatype for layer in layers}
        timed = tuple(
            TimedLayer(
                layer.name,
                layer.operator,
                self.overhead_s + max((layer.operations or 0) / PEAK, layer.traffic_bytes / BYTES),
                (layer.name,),
            )
            for layer in layers
        )
        return TimedRun(timed, alone_s=1.0, watched_s=1.0, covered=1.0)


@pytest.mark.parametrize("datatype", ["float", "float16"])
def test_peaks_are_found(datatype: str) -> None:
    machine = Machine()

    roof = measure_roofline(machine, datatype)

    assert roof.bytes_per_s == pytest.approx(BYTES)
    assert PEAK / 10 < roof.operations_per_s <= PEAK
    assert machine.datatypes == {datatype}


def test_larger_problems_are_tried_where_small_ones_are_overhead() -> None:
    assert measure_roofline(Machine(overhead_s=1e-4), "float").operations_per_s > PEAK / 10


def test_the_longer_of_the_two_bounds() -> None:
    roof = Roofline(operations_per_s=100.0, bytes_per_s=10.0, source="stated")

    assert roof.bound(operations=1000, size_bytes=1) is Bound.COMPUTE
    assert roof.bound(operations=10, size_bytes=10) is Bound.MEMORY
    assert roof.least_s(operations=1000, size_bytes=1) == 10.0
    assert roof.least_s(operations=10, size_bytes=10) == 1.0


def test_a_whole_network_may_be_quicker_than_its_interrupted_layers() -> None:
    class Interrupted(Machine):
        def __call__(self, path: Path) -> TimedRun:
            run = super().__call__(path)
            slow = tuple(replace(layer, seconds=100 * layer.seconds) for layer in run.layers)
            return replace(run, layers=slow, alone_s=run.layers_s)

    assert measure_roofline(Interrupted(), "float").bytes_per_s == pytest.approx(BYTES)
