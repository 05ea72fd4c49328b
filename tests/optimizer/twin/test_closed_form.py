"""The simulation against Inoue's closed form (Performance Evaluation, 2021), through the production queue."""

from __future__ import annotations

import dataclasses

import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.twin.arrivals import poisson
from optimizer.twin.gpu_profile import GpuProfile, Noise
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

V100 = load_profile("v100")
# The V100's line in that paper: a batch of b images takes FIXED_S + b * PER_IMAGE_S.
FIXED_S, PER_IMAGE_S = 1.8874e-3, 0.1438e-3
UNLIMITED = 100_000


class Line:
    def batch_s(self, batch: int, clock_mhz: float) -> float:
        return FIXED_S + PER_IMAGE_S * batch

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        return 100.0


def mean_latency_s(card: GpuProfile, rate_per_s: float, images: int) -> float:
    clock = SimulatedClock()
    gpu = SimulatedGpu(dataclasses.replace(card, noise=Noise()), clock=clock)
    server = SimulatedServer(gpu, "resnet50", clock, batch_limit=UNLIMITED)
    duration_s = images / rate_per_s
    server.run(poisson(rate_per_s, duration_s, seed=11), duration_s + 10.0, 1e9, lambda: None)
    assert len(server.latencies_ms) > 0.9 * images
    return float(server.latencies_ms.mean()) / 1e3


def bound_s(load: float, fixed_s: float, per_image_s: float) -> float:
    """Theorem 2: min(phi0, phi1), without a batch limit, at `load` = arrival rate * per_image_s."""
    rate = load / per_image_s
    burst = 1 + 2 * rate * fixed_s + (1 - rate * fixed_s) / (1 + load)
    phi0 = (per_image_s + fixed_s) / (2 * (1 - load)) * burst
    phi1 = 1.5 * fixed_s / (1 - load) + per_image_s / 2 * (load + 2) / (1 - load**2)
    return min(phi0, phi1)


@pytest.mark.parametrize(
    ("load", "mean_ms", "images"),
    [
        (0.05, 2.71, 50_000),
        (0.1, 3.15, 50_000),
        (0.3, 4.22, 50_000),
        (0.5, 5.89, 100_000),
        (0.7, 9.77, 200_000),
    ],
)
def test_mean_latencies_are_those_of_the_paper(load: float, mean_ms: float, images: int) -> None:
    line = dataclasses.replace(V100, models={"resnet50": Line()})
    mean_s = mean_latency_s(line, load / PER_IMAGE_S, images)
    assert mean_s * 1e3 == pytest.approx(mean_ms, rel=0.03)
    limit_s = bound_s(load, FIXED_S, PER_IMAGE_S)
    assert mean_s < 1.02 * limit_s, "never above the bound, but for chance"
    if load >= 0.3:
        assert mean_s == pytest.approx(limit_s, rel=0.03)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_the_shipped_v100_keeps_to_the_closed_form(load: float) -> None:
    """Its batch time is a line in the batch at any clock, with a slope and an offset of its own."""
    net, boost_mhz = V100.model("resnet50"), V100.boost_clock_mhz
    per_image_s = net.batch_s(2, boost_mhz) - net.batch_s(1, boost_mhz)
    fixed_s = net.batch_s(1, boost_mhz) - per_image_s
    mean_s = mean_latency_s(V100, load / per_image_s, 100_000)
    assert mean_s == pytest.approx(bound_s(load, fixed_s, per_image_s), rel=0.03)
