from bench.layers.cost import LayerCost
from bench.layers.findings import find
from bench.layers.groups import by_kind
from bench.layers.roofline import Bound


def layer(
    kind: str, seconds: float, multiply_adds: int, share: float, bound: Bound, of_roof: float
) -> LayerCost:
    return LayerCost(kind, kind, (), seconds, share, multiply_adds, 2 * multiply_adds, 1000, bound, of_roof)


LAYERS = (
    layer("pointwise 1x1", 6e-3, 600_000, 0.6, Bound.COMPUTE, 0.9),
    layer("depthwise 3x3", 3e-3, 60_000, 0.3, Bound.MEMORY, 0.2),
    layer("elementwise", 1e-3, 0, 0.1, Bound.MEMORY, 0.5),
)
NOTHING = (None,) * len(LAYERS)


def findings() -> str:
    return "\n".join(find(LAYERS, NOTHING, by_kind(LAYERS, NOTHING)))


def test_kinds_are_named_with_their_time_and_arithmetic() -> None:
    assert "pointwise 1x1: 60.0% of the time for 90.9% of the arithmetic, in 1 layer" in findings()


def test_small_kernels_are_compared_by_the_multiply_add() -> None:
    assert "quickest in pointwise 1x1: 10000.0 ps" in findings()
    assert "in depthwise 3x3 it takes 5.0 times as long" in findings()


def test_the_smallest_layers_are_weighed() -> None:
    assert "the 1 smallest of 2 layers that compute do 9.1% of the arithmetic in 30.0%" in findings()


def test_the_least_time_of_a_layer_is_set_against_their_number() -> None:
    found = findings()

    assert "no layer takes less than 1000.0 us (elementwise)" in found
    assert "that much in each of 3 layers is 30.0%" in found


def test_bounds_are_weighed_by_time() -> None:
    assert "bound by compute: 1 layer, 60.0% of the time" in findings()
    assert "bound by memory: 2 layers, 40.0% of the time" in findings()
    assert "below 25% of the roofline: 1 layer, 30.0% of the time" in findings()


def test_energy_that_nobody_measured_proves_nothing() -> None:
    assert "cannot be said: energy was not measured" in findings()
