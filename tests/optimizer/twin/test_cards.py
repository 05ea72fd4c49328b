"""The shipped cards against what was published about them."""

from __future__ import annotations

import math

import pytest
from published_networks import Count, efficientnet_lite0, mobilenetv2, resnet50, vgg16

from optimizer.devices.simulated import SimulatedGpu
from optimizer.telemetry import EventReason
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.physics import ParametricPhysics
from optimizer.twin.profile import load_profile, shipped_profiles
from optimizer.twin.simulation import SimulatedClock

CARDS = {name: load_profile(name) for name in ("v100", "a100", "h100", "h200", "t4")}
NETWORKS = {
    "resnet50": resnet50(),
    "vgg16": vgg16(),
    "mobilenetv2": mobilenetv2(),
    "efficientnet-lite0": efficientnet_lite0(),
}
FULL_BATCH = 128
EVERY = [(card, network) for card in CARDS for network in NETWORKS]


def joules_per_image(card: GpuProfile, network: str, clock_mhz: int, batch: int = FULL_BATCH) -> float:
    net = card.model(network)
    return net.busy_power_w(batch, clock_mhz) * net.batch_s(batch, clock_mhz) / batch


def best_clock(card: GpuProfile, network: str) -> int:
    return min(card.sm_clocks_mhz, key=lambda clock_mhz: joules_per_image(card, network, clock_mhz))


def saved(card: GpuProfile, network: str) -> float:
    """Return the share of the energy that the best clock saves of what the card uses when left alone."""
    alone_mhz = card.running_clock_mhz(network, FULL_BATCH, card.boost_clock_mhz)
    best_mhz = best_clock(card, network)
    return 1.0 - joules_per_image(card, network, best_mhz) / joules_per_image(card, network, alone_mhz)


def test_every_card_runs_the_four_networks() -> None:
    assert set(shipped_profiles()) == set(CARDS)
    assert all(set(card.models) == set(NETWORKS) for card in CARDS.values())


@pytest.mark.parametrize(
    ("name", "clocks"),
    [
        ("v100", [int(135 + 7.5 * k) for k in range(187)]),
        ("a100", list(range(210, 1411, 15))),
        ("h100", list(range(345, 1786, 15))),
        ("h200", list(range(345, 1981, 15))),
        ("t4", list(range(300, 1591, 15))),
    ],
)
def test_clock_grids_are_exact(name: str, clocks: list[int]) -> None:
    assert list(CARDS[name].sm_clocks_mhz) == clocks
    assert CARDS[name].boost_clock_mhz == clocks[-1]
    assert len(clocks) == {"v100": 187, "a100": 81, "h100": 97, "h200": 110, "t4": 87}[name]


@pytest.mark.parametrize(
    ("name", "idle_w", "limit_w"), [("v100", 23, 300), ("a100", 32, 250), ("h100", 61, 400)]
)
def test_idle_power_and_limits_are_those_measured(name: str, idle_w: float, limit_w: float) -> None:
    assert (CARDS[name].idle_power_w, CARDS[name].power_limit_w) == (idle_w, limit_w)


@pytest.mark.parametrize(("name", "network"), EVERY)
def test_physics_are_sane(name: str, network: str) -> None:
    card, net = CARDS[name], CARDS[name].model(network)
    clocks, boost_mhz = card.sm_clocks_mhz, card.boost_clock_mhz
    for batch in (1, 8, FULL_BATCH):
        times = [net.batch_s(batch, clock) for clock in clocks]
        powers = [net.busy_power_w(batch, clock) for clock in clocks]
        assert times == sorted(times, reverse=True)
        assert powers == sorted(powers)
        assert powers[0] > card.idle_power_w
        rates = [1 / time for time in times]
        middle = (clocks[0] + clocks[-1]) / 2
        assert 1 / net.batch_s(batch, middle) > (rates[0] + rates[-1]) / 2, (
            "throughput is concave in the clock"
        )
    sizes = range(1, FULL_BATCH + 1)
    rates = [size / net.batch_s(size, boost_mhz) for size in sizes]
    assert rates == sorted(rates)
    powers = [net.busy_power_w(size, boost_mhz) for size in sizes]
    assert powers == sorted(powers)


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "resnet50"])
def test_networks_are_scaled_by_the_figures_that_the_profiles_state(name: str, network: str) -> None:
    base, net = CARDS[name].model("resnet50"), CARDS[name].model(network)
    count, reference = NETWORKS[network], NETWORKS["resnet50"]
    assert isinstance(base, ParametricPhysics)
    assert isinstance(net, ParametricPhysics)
    work = (1.0 if network == "vgg16" else 6.0) * count.macs / reference.macs
    traffic, layers = count.elements / reference.elements, count.layers / reference.layers
    assert net.compute_ms_per_image == pytest.approx(work * base.compute_ms_per_image, rel=5e-3)
    assert net.memory_ms_per_image == pytest.approx(traffic * base.memory_ms_per_image, rel=5e-3)
    assert net.launch_ms == pytest.approx(layers * base.launch_ms, rel=5e-3)
    assert net.compute_ms == pytest.approx(layers * base.compute_ms, rel=5e-3)
    bytes_per_ms = {"v100": 900e6, "a100": 1555e6, "h100": 3938e6, "h200": 4800e6, "t4": 320e6}[name]

    def latencies_ms(physics: ParametricPhysics, counted: Count) -> float:
        return physics.memory_ms - 2 * counted.weights / bytes_per_ms

    assert latencies_ms(net, count) == pytest.approx(layers * latencies_ms(base, reference), abs=1e-3)
    energy = 0.65 * work + 0.35 * traffic
    assert net.activity_w * endless_ms(net) == pytest.approx(
        energy * base.activity_w * endless_ms(base), rel=5e-3
    )
    assert net.memory_activity_share == pytest.approx(0.35 * traffic / energy, rel=5e-3)


def endless_ms(net: ParametricPhysics) -> float:
    """Return the time of an image in an endless batch at boost."""
    boost_mhz = net.chip.boost_clock_mhz
    return (net.batch_s(2, boost_mhz) - net.batch_s(1, boost_mhz)) * 1e3


@pytest.mark.parametrize(
    ("name", "tera", "giga"),
    [("v100", 125, 900), ("a100", 312, 1555), ("h100", 835, 3938), ("h200", 989, 4800), ("t4", 65, 320)],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_no_network_is_faster_than_its_card(name: str, tera: float, giga: float, network: str) -> None:
    """Peak rates of the data sheets: dense FP16 on tensor cores, memory bandwidth; 2 bytes an element."""
    net = CARDS[name].model(network)
    assert isinstance(net, ParametricPhysics)
    assert net.compute_ms_per_image > 2 * NETWORKS[network].macs / (tera * 1e12) * 1e3
    assert net.memory_ms_per_image > 2 * NETWORKS[network].elements / (giga * 1e9) * 1e3


@pytest.mark.parametrize("network", NETWORKS)
def test_a_loaded_a100_is_most_efficient_at_half_its_limit(network: str) -> None:
    """Joule Point (2026): the best cap is 46 % of the TDP, saves 29 % of the energy and is 1.24x slower."""
    card, net = CARDS["a100"], CARDS["a100"].model(network)
    best_mhz = best_clock(card, network)
    assert 0.40 <= net.busy_power_w(FULL_BATCH, best_mhz) / card.power_limit_w <= 0.55
    assert 0.20 <= saved(card, network) <= 0.35
    slower = net.batch_s(FULL_BATCH, best_mhz) / net.batch_s(FULL_BATCH, card.boost_clock_mhz)
    assert 1.1 < slower < 1.5


def test_the_a100s_static_power_and_throughput_follow_the_sweeps() -> None:
    """PctoDL's fits: static power flat to 900 MHz, ResNet-50's throughput with the clock to the 0.56."""
    net = CARDS["a100"].model("resnet50")
    assert isinstance(net, ParametricPhysics)
    chip = net.chip
    for clock_mhz, static_w in ((210, 28.5), (510, 29.1), (810, 29.3), (1110, 34.0), (1410, 48.5)):
        modelled_w = chip.constant_w + chip.leakage_w * chip.voltage(clock_mhz) ** 3
        assert modelled_w == pytest.approx(static_w, rel=0.06)
    faster = net.batch_s(FULL_BATCH, 210) / net.batch_s(FULL_BATCH, 1410)
    assert math.log(faster) / math.log(1410 / 210) == pytest.approx(0.56, abs=0.08)


@pytest.mark.parametrize("network", ["resnet50", "mobilenetv2", "efficientnet-lite0"])
def test_the_v100s_best_clock_saves_what_was_published(network: str) -> None:
    """Tang et al. (e-Energy 2019): 19.6 to 26.4 %; best clocks lie at 0.39 to 0.85 of the maximum."""
    assert 0.196 < saved(CARDS["v100"], network) < 0.264
    assert 0.39 < best_clock(CARDS["v100"], network) / 1530 < 0.85


def test_less_is_saved_where_the_power_limit_already_slows_down() -> None:
    v100 = CARDS["v100"]
    assert v100.running_clock_mhz("vgg16", FULL_BATCH, 1530) < 1530
    assert 0.1 < saved(v100, "vgg16") < saved(v100, "resnet50")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_full_t4_runs_at_the_largest_clock_that_keeps_its_limit(network: str) -> None:
    clock = SimulatedClock()
    card, net = CARDS["t4"], CARDS["t4"].model(network)
    gpu = SimulatedGpu(card, clock=clock)
    gpu.read()
    while clock.now_s < 1.0:
        clock.now_s += gpu.execute(network, FULL_BATCH)
    gpu.read()
    start_s = clock.now_s
    gpu.execute(network, FULL_BATCH)
    reading = gpu.read()
    assert reading.event_reasons == EventReason.SW_POWER_CAP
    assert reading.sm_clock_mhz is not None
    assert reading.sm_clock_mhz < card.boost_clock_mhz
    above_mhz = card.sm_clocks_mhz[card.sm_clocks_mhz.index(reading.sm_clock_mhz) + 1]
    assert net.busy_power_w(FULL_BATCH, reading.sm_clock_mhz) <= card.power_limit_w
    assert net.busy_power_w(FULL_BATCH, above_mhz) > card.power_limit_w
    assert clock.now_s == start_s


@pytest.mark.parametrize("name", CARDS)
def test_the_limiter_settles_within_a_quarter_of_a_second(name: str) -> None:
    """A10G, 12 steps: to within 5 % after 191 ms in the median, 242 ms at most."""
    assert 0.15 < CARDS[name].power_cap_settle_s < 0.242
