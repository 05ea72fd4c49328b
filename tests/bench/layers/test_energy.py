from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.layers.cost import LayerCost, cost_layers
from bench.layers.energy import NetworkEnergy, Rule, by_time, meter_network, repeated
from bench.layers.findings import find
from bench.layers.groups import by_kind
from bench.layers.metering import Metered, Subject, meter_each, meter_whole, unmetered
from bench.layers.roofline import Roofline
from bench.layers.timed import TimedLayer, TimedRun
from optimizer.layers.count import count_layers_of_file

IDLE_W, BUSY_W = 10.0, 30.0


@dataclass
class Spent:
    power_w: float | None
    source: str = "rapl"


class MadeUpMeter:
    """Tells the powers it is given, one for each span; then the last."""

    def __init__(self, *powers_w: float | None) -> None:
        self.powers_w = list(powers_w)

    def span(self, seconds: float) -> Spent:
        return Spent(self.powers_w.pop(0) if len(self.powers_w) > 1 else self.powers_w[0])


class Counter:
    runs = 0

    def __call__(self) -> None:
        self.runs += 1


@pytest.fixture
def layers(network: Path) -> tuple[LayerCost, ...]:
    timed = (
        TimedLayer("stem", "Conv", 3e-3, ("subtract", "stem", "stem_relu")),
        TimedLayer("depth", "Conv", 1e-3, ("depth", "depth_relu")),
        TimedLayer("reorder", "Reorder", 1e-3, ()),
        TimedLayer("point", "Conv", 4e-3, ("point", "add", "add_relu")),
        TimedLayer("dense", "Gemm", 1e-3, ("pool", "flatten", "dense")),
    )
    run = TimedRun(timed, alone_s=1e-2, watched_s=1e-2, covered=1.0)
    return cost_layers(run, count_layers_of_file(network), Roofline(1e9, 1e9, "stated"))


def subject(network: Path) -> Subject:
    return Subject(network, "onnxruntime", 1, 1)


def silent(_step: str, _place: int, _steps: int) -> None:
    pass


def test_what_a_batch_uses_above_idle() -> None:
    work = Counter()

    found = meter_network(MadeUpMeter(BUSY_W), IDLE_W, work, 0.01)

    assert found is not None
    assert found.batch_j == pytest.approx(BUSY_W * found.batch_s)
    assert found.above_idle_j == pytest.approx((BUSY_W - IDLE_W) * found.batch_s)
    assert found.source == "rapl"
    assert work.runs >= 2  # the first finds nothing prepared, and is not counted


def test_without_a_counter_nothing_is_claimed() -> None:
    assert meter_network(MadeUpMeter(None), IDLE_W, Counter(), 0.01) is None
    assert meter_network(MadeUpMeter(BUSY_W), None, Counter(), 0.01) is None
    assert repeated(MadeUpMeter(None), IDLE_W, Counter(), 0.01, 1.0) is None


def test_a_run_that_fails_is_told() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        meter_network(MadeUpMeter(BUSY_W), IDLE_W, fail, 0.01)


def test_a_repeated_layer_uses_its_power_for_its_time_in_the_network() -> None:
    found = repeated(MadeUpMeter(BUSY_W), IDLE_W, Counter(), 0.01, in_network_s=0.5)

    assert found is not None
    assert found.above_idle_j == pytest.approx(0.5 * (BUSY_W - IDLE_W))
    assert found.above_idle_w == BUSY_W - IDLE_W
    assert found.rule is Rule.REPEATED


def test_division_by_time_says_nothing_about_power(layers: tuple[LayerCost, ...]) -> None:
    energies = by_time(NetworkEnergy(IDLE_W, BUSY_W, 0.01, "rapl"), layers)

    assert sum(energy.above_idle_j for energy in energies) == pytest.approx(0.2)
    assert all(energy.above_idle_w is None for energy in energies)
    assert any("cannot be said" in line for line in find(layers, energies, by_kind(layers, energies)))


def test_the_network_is_metered_and_divided(network: Path, layers: tuple[LayerCost, ...]) -> None:
    meter = MadeUpMeter(IDLE_W, BUSY_W)

    metered = meter_whole(subject(network), layers, meter, 0.01, silent)

    assert metered.network is not None
    assert metered.network.idle_w == IDLE_W
    assert metered.adds_up == pytest.approx(1.0)


def test_each_layer_is_repeated_alone(network: Path, layers: tuple[LayerCost, ...]) -> None:
    meter = MadeUpMeter(IDLE_W, BUSY_W, 20.0, 30.0, 40.0, 15.0)

    metered = meter_each(subject(network), layers, meter, 0.01, silent)

    powers_w = [energy.above_idle_w if energy else None for energy in metered.layers]
    assert powers_w == [10.0, 20.0, None, 30.0, 5.0]  # what the engine added is in no network of its own
    assert metered.layers[3] is not None
    assert metered.layers[3].above_idle_j == pytest.approx(30.0 * 4e-3)
    assert metered.notes == ()


def test_a_layer_that_does_not_run_alone_is_left_unknown(
    network: Path, layers: tuple[LayerCost, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such tensor")

    monkeypatch.setattr("bench.layers.cutting.Cutter.cut", fail)

    metered = meter_each(subject(network), layers, MadeUpMeter(IDLE_W, BUSY_W), 0.01, silent)

    assert metered.layers == (None,) * 5
    assert any("stem" in note and "no such tensor" in note for note in metered.notes)


def test_a_counter_that_stops_is_no_zero(network: Path, layers: tuple[LayerCost, ...]) -> None:
    metered = meter_whole(subject(network), layers, MadeUpMeter(None), 0.01, silent)

    assert metered == unmetered(layers, "the counter gave nothing")
    assert metered.adds_up is None


def test_kinds_share_the_energy_and_balance_is_judged(layers: tuple[LayerCost, ...]) -> None:
    powers_w = (30.0, 10.0, None, 30.0, 30.0)
    energies = tuple(
        repeated(MadeUpMeter(IDLE_W + watts), IDLE_W, Counter(), 0.001, layer.seconds)
        if watts is not None
        else None
        for watts, layer in zip(powers_w, layers, strict=True)
    )

    kinds = {kind.kind: kind for kind in by_kind(layers, energies)}
    findings = find(layers, energies, tuple(kinds.values()))

    assert kinds["depthwise 3x3"].energy_share == pytest.approx(0.01 / (0.09 + 0.01 + 0.12 + 0.03))
    assert kinds["added by the engine"].above_idle_j is None
    assert any(
        "not balanced" in line and "least in depthwise 3x3 (10.0 W)" in line and "most in" in line
        for line in findings
    )


def test_metered_parts_are_held_against_the_whole(layers: tuple[LayerCost, ...]) -> None:
    whole = NetworkEnergy(IDLE_W, BUSY_W, 0.01, "rapl")
    half = repeated(MadeUpMeter(BUSY_W), IDLE_W, Counter(), 0.001, 0.005)

    assert Metered(whole, (half, None)).adds_up == pytest.approx(0.5)
    assert Metered(whole, (None,)).adds_up is None
