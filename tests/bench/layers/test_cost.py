import pytest
from small_cnn import CHANNELS, CLASSES, SIZE, small_cnn

from bench.layers.cost import LayerCost, best_arithmetic, cost_layers
from bench.layers.kinds import ADDED, kind_of
from bench.layers.roofline import Bound, Roofline
from bench.layers.timed import TimedLayer, TimedRun
from optimizer.layers.count import count_layers

BATCH = 2
PLANE = BATCH * CHANNELS * SIZE * SIZE
ROOF = Roofline(operations_per_s=1e9, bytes_per_s=1e9, source="stated")


def costs(*timed: TimedLayer) -> tuple[LayerCost, ...]:
    run = TimedRun(timed, alone_s=1.0, watched_s=1.0, covered=1.0)
    return cost_layers(run, count_layers(small_cnn(), BATCH), ROOF)


def timed(*nodes: str, seconds: float = 1e-3) -> TimedLayer:
    return TimedLayer(nodes[0] if nodes else "reorder", "Conv", seconds, nodes)


def test_arithmetic_of_what_is_fused_is_added_up() -> None:
    (cost,) = costs(timed("point", "add", "add_relu"))

    assert cost.multiply_adds == PLANE * CHANNELS
    assert cost.operations == 2 * PLANE * CHANNELS + 2 * PLANE  # sum and ReLU: one for each answer


def test_what_passes_inside_a_piece_moves_no_bytes() -> None:
    (cost,) = costs(timed("point", "add", "add_relu"))

    read, summand, written, weights = PLANE, PLANE, PLANE, CHANNELS * CHANNELS
    assert cost.traffic_bytes == 4 * (read + summand + written + weights)


def test_what_others_read_as_well_is_written() -> None:
    alone, together = costs(timed("stem"), timed("stem_relu", "depth"))

    assert alone.traffic_bytes == 4 * (BATCH * 3 * SIZE**2 + PLANE + CHANNELS * 27)
    # the ReLU's answer is read by the sum too, so it leaves beside the convolution's
    assert together.traffic_bytes == 4 * (PLANE + 2 * PLANE + CHANNELS * 9)


def test_the_last_answer_is_written() -> None:
    (cost,) = costs(timed("dense"))

    assert cost.traffic_bytes == 4 * (BATCH * CHANNELS + BATCH * CLASSES + CHANNELS * CLASSES)


def test_rates_and_bounds() -> None:
    computing, moving = costs(timed("point", seconds=0.01), timed("stem_relu", seconds=0.03))

    assert computing.bound is Bound.COMPUTE
    assert computing.of_roof == pytest.approx(2 * PLANE * CHANNELS / 1e9 / 0.01)
    assert computing.operations_per_s == pytest.approx(2 * PLANE * CHANNELS / 0.01)
    assert moving.bound is Bound.MEMORY
    assert moving.bytes_per_s == pytest.approx(8 * PLANE / 0.03)
    assert (computing.share, moving.share) == pytest.approx((0.25, 0.75))


def test_what_the_engine_added_has_time_and_nothing_else() -> None:
    (added,) = costs(timed())

    assert (added.kind, added.name) == (ADDED, "reorder")
    assert (added.operations, added.bound, added.of_roof, added.bytes_per_s) == (None, None, None, None)


def test_a_time_below_the_tick_gives_no_rate() -> None:
    (cost,) = costs(timed("dense", seconds=0.0))

    assert (cost.operations_per_s, cost.bytes_per_s, cost.of_roof) == (None, None, None)


def test_kinds_are_told_apart() -> None:
    layers = {layer.name: layer for layer in count_layers(small_cnn())}

    def kind(*names: str) -> str:
        return kind_of([layers[name] for name in names])

    assert kind("stem", "stem_relu") == "convolution 3x3"
    assert kind("depth") == "depthwise 3x3"
    assert kind("point", "add", "add_relu") == "pointwise 1x1"
    assert kind("dense") == "fully connected"
    assert kind("pool") == "pooling"
    assert kind("add_relu") == "elementwise"
    assert kind("flatten") == "data movement"


def test_the_roof_is_raised_to_what_was_seen() -> None:
    layers = count_layers(small_cnn(), BATCH)
    run = TimedRun((timed("point", seconds=1e-6), timed()), alone_s=1.0, watched_s=1.0, covered=1.0)
    best = best_arithmetic(run, layers)

    assert best == pytest.approx(2 * PLANE * CHANNELS / 1e-6)
    assert ROOF.raised(best).operations_per_s == best
    assert "quickest layer" in ROOF.raised(best).source
    assert ROOF.raised(1.0) == ROOF
