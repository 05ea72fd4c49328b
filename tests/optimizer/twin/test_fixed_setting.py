from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.operating_point import OperatingPoint
from optimizer.twin.arrivals import Times, mmpp, poisson
from optimizer.twin.fixed_setting import Batches, batch_costs, batch_noise, energy_until, serve_fixed
from optimizer.twin.gpu_profile import GpuProfile, Noise
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

V100 = replace(load_profile("v100"), noise=Noise())
END_S = 6.0


def by_the_queue(
    profile: GpuProfile, model: str, point: OperatingPoint, arrivals_s: Times
) -> tuple[SimulatedServer, SimulatedGpu]:
    clock = SimulatedClock(-10.0)
    gpu = SimulatedGpu(profile, clock=clock)
    server = SimulatedServer(gpu, model, clock, batch_limit=1, max_queue_images=arrivals_s.size)
    server.act(point)
    server.run([], 0.0, 1e9, lambda: None)
    server.run(arrivals_s, END_S, 1e9, lambda: None)
    return server, gpu


def batch_by_batch(profile: GpuProfile, model: str, point: OperatingPoint, arrivals_s: Times) -> Batches:
    assert point.sm_clock_mhz is not None
    costs = batch_costs(profile, model, point.sm_clock_mhz, point.batch_limit)
    noise = batch_noise(profile, arrivals_s.size, seed=0)
    return serve_fixed(arrivals_s.tolist(), point.batch_limit, costs, noise, END_S)


def latencies_ms(batches: Batches, arrivals_s: Times) -> Times:
    answered = batches.ends_s <= END_S
    ends_s = np.repeat(batches.ends_s[answered], batches.images[answered])
    return (ends_s - arrivals_s[: ends_s.size]) * 1e3


TRAFFIC = {
    "quiet": poisson(50.0, 5.0, seed=1),
    "busy": poisson(2500.0, 5.0, seed=2),
    "bursty": mmpp((100.0, 4000.0), (0.5, 0.5), 5.0, seed=3),
    "in crowds": np.repeat(np.arange(0.0, 5.0, 0.25), 60),
}


@pytest.mark.parametrize("arrivals_s", TRAFFIC.values(), ids=TRAFFIC.keys())
@pytest.mark.parametrize(
    "point", [OperatingPoint(1, 1530), OperatingPoint(7, 607), OperatingPoint(128, 1095)]
)
def test_it_does_to_the_digit_what_the_production_queue_does(
    arrivals_s: Times, point: OperatingPoint
) -> None:
    server, gpu = by_the_queue(V100, "resnet50", point, arrivals_s)
    batches = batch_by_batch(V100, "resnet50", point, arrivals_s)
    assert latencies_ms(batches, arrivals_s).tolist() == server.latencies_ms.tolist()
    used_j = energy_until(batches, V100.idle_power_w, np.array([END_S]))[0]
    assert used_j == pytest.approx(gpu.used_j(), rel=1e-9)


def test_it_obeys_a_power_limit_that_takes_time_to_settle() -> None:
    profile = replace(V100, power_limit_w=150.0, power_cap_settle_s=0.3)
    point, arrivals_s = OperatingPoint(64, 1530), TRAFFIC["bursty"]
    server, gpu = by_the_queue(profile, "resnet50", point, arrivals_s)
    batches = batch_by_batch(profile, "resnet50", point, arrivals_s)
    unlimited = batch_by_batch(V100, "resnet50", point, arrivals_s)
    assert latencies_ms(batches, arrivals_s).tolist() == server.latencies_ms.tolist()
    used_j = energy_until(batches, profile.idle_power_w, np.array([END_S]))[0]
    assert used_j == pytest.approx(gpu.used_j(), rel=1e-9)
    assert batches.seconds.max() > unlimited.seconds.max(), "the limit was felt"


def test_noise_changes_little_and_repeats_by_seed() -> None:
    noisy, arrivals_s = load_profile("v100"), TRAFFIC["busy"]
    point = OperatingPoint(32, 1095)
    quiet, loud, again = (
        batch_by_batch(profile, "resnet50", point, arrivals_s) for profile in (V100, noisy, noisy)
    )
    assert loud.seconds.tolist() == again.seconds.tolist()
    assert loud.seconds.tolist() != quiet.seconds.tolist()
    assert latencies_ms(loud, arrivals_s).mean() == pytest.approx(
        latencies_ms(quiet, arrivals_s).mean(), rel=0.05
    )


def test_energy_between_and_within_batches() -> None:
    batches = Batches(np.array([1.0, 3.0]), np.array([1.0, 0.5]), np.array([1, 1]), np.array([110.0, 210.0]))
    times_s = np.array([0.0, 1.0, 1.5, 2.5, 3.25, 10.0])
    assert energy_until(batches, 10.0, times_s).tolist() == pytest.approx(
        [0.0, 10.0, 65.0, 125.0, 182.5, 300.0]
    )
    nothing = Batches(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), np.empty(0))
    assert energy_until(nothing, 10.0, times_s).tolist() == [0.0, 10.0, 15.0, 25.0, 32.5, 100.0]
