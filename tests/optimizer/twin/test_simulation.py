from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.models.batch_regime import mean_latency_s, regimes
from optimizer.models.batch_sizes import BatchSizes
from optimizer.models.load import Load
from optimizer.operating_point import OperatingPoint
from optimizer.surge import Tripwire
from optimizer.telemetry import LATEST_BATCHES, Traffic
from optimizer.twin.arrivals import poisson
from optimizer.twin.gpu_profile import GpuProfile, Noise, PowerSensor
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

# The V100's line of Inoue (Performance Evaluation, 2021).
FIXED_S, PER_IMAGE_S = 1.8874e-3, 0.1438e-3


class Affine:
    def batch_s(self, batch: int, clock_mhz: float) -> float:
        return FIXED_S + PER_IMAGE_S * batch

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        return 100.0


PROFILE = GpuProfile(
    name="affine",
    source="tests",
    sm_clocks_mhz=(1000,),
    boost_clock_mhz=1000,
    power_limit_w=200,
    idle_power_w=20,
    clock_switch_s=(0.0, 0.0),
    power_sensor=PowerSensor(0.02, 0.02),
    energy_counter_period_s=0.0,
    noise=Noise(),
    models={"net": Affine()},
)


def simulate(
    rate: float, duration_s: float, *, limit: int = 10_000, seed: int = 1, **options: float
) -> tuple[SimulatedServer, Traffic]:
    clock = SimulatedClock()
    gpu = SimulatedGpu(PROFILE, clock=clock)
    server = SimulatedServer(gpu, "net", clock, batch_limit=limit, **options)
    server.run(poisson(rate, duration_s, seed=seed), duration_s + 100.0, 1e9, lambda: None)
    return server, server.sense(50.0)[0]


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7])
def test_mean_latency_lies_just_below_the_closed_form_bound(load: float) -> None:
    """Inoue's Theorem 2: without a batch limit the mean is at most min(phi0, phi1), and hardly less."""
    rate, la = load / PER_IMAGE_S, load
    phi0 = (
        (PER_IMAGE_S + FIXED_S) / (2 * (1 - la)) * (1 + 2 * rate * FIXED_S + (1 - rate * FIXED_S) / (1 + la))
    )
    phi1 = 1.5 * FIXED_S / (1 - la) + PER_IMAGE_S / 2 * (la + 2) / (1 - la**2)
    server, _ = simulate(rate, 40_000 / rate)
    mean_s = server.latencies_ms.mean() / 1e3
    assert 0.93 * min(phi0, phi1) < mean_s < 1.03 * min(phi0, phi1)


@pytest.mark.parametrize(("load", "limit"), [(0.05, 64), (0.3, 64), (0.6, 32), (0.85, 64)])
def test_the_queueing_model_foretells_the_simulation(load: float, limit: int) -> None:
    sizes = np.arange(1.0, limit + 1.0)
    times_s = (FIXED_S + PER_IMAGE_S * sizes)[:, None]
    rate = load * limit / times_s[-1, 0]
    foretold = regimes(BatchSizes(sizes), times_s, np.array([limit - 1]), Load(rate, 1.0), limit_s=0.05)
    at_once = np.flatnonzero(foretold.possible[:, 0])[0]
    _, traffic = simulate(rate, 40_000 / rate, limit=limit)
    batches = traffic.batches.items()
    mean = sum(size * times.count for size, times in batches) / sum(times.count for _, times in batches)
    whole = foretold.at_once.mean[0]
    assert 0.95 * mean < whole < mean + 1.05, "the next whole batch"
    busy_s = sum(times.total_s for _, times in batches)
    assert foretold.busy[at_once, 0] == pytest.approx(busy_s / (40_000 / rate), rel=0.08)
    assert traffic.latency_p99_ms is not None
    assert (
        0.95 < foretold.longest_s(np.array([at_once]), np.array([0]))[0] * 1e3 / traffic.latency_p99_ms < 1.6
    ), "cautious, not absurdly so"


@pytest.mark.parametrize("delay_ms", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("load", [0.02, 0.1, 0.3, 0.6, 0.85])
def test_the_queueing_model_foretells_the_mean_latency(load: float, delay_ms: float) -> None:
    limit = 64
    sizes = np.arange(1.0, limit + 1.0)
    times_s, cap = (FIXED_S + PER_IMAGE_S * sizes)[:, None], np.array([limit - 1])
    rate = load * limit / times_s[-1, 0]
    foretold = regimes(BatchSizes(sizes), times_s, cap, Load(rate, 1.0), limit_s=0.05)
    row = max(round(rate * delay_ms / 1e3), int(foretold.possible[:, 0].argmax()))
    clock = SimulatedClock()
    server = SimulatedServer(SimulatedGpu(PROFILE, clock=clock), "net", clock, batch_limit=limit)
    server.act(OperatingPoint(limit, 1000, max_delay_ms=1e3 * float(foretold.delay_s[row, 0])))
    server.run(poisson(rate, 20_000 / rate, seed=1), 20_000 / rate + 100.0, 1e9, lambda: None)
    mean_s = mean_latency_s(BatchSizes(sizes), times_s, cap, Load(rate, 1.0), foretold.delay_s > 0.0)
    assert mean_s[row, 0] == pytest.approx(server.latencies_ms.mean() / 1e3, rel=0.05)


@pytest.mark.parametrize("images", [(4,), (8,), (1, 1, 2, 4, 8)])
@pytest.mark.parametrize("load", [0.02, 0.1, 0.3, 0.6])
def test_the_queueing_model_foretells_requests_of_several_images(
    load: float, images: tuple[int, ...]
) -> None:
    limit = 64
    sizes = np.arange(1.0, limit + 1.0)
    times_s = (FIXED_S + PER_IMAGE_S * sizes)[:, None]
    rate = load * limit / times_s[-1, 0]
    mean, own = np.mean(images), np.sum(np.square(images)) / np.sum(images)
    expected = Load(rate, own, float(mean), float(own), max(images))
    foretold = regimes(BatchSizes(sizes), times_s, np.array([limit - 1]), expected, limit_s=0.05)
    random = np.random.default_rng(3)
    each = random.choice(images, 20_000)
    arrivals_s = np.repeat(np.cumsum(random.exponential(mean / rate, each.size)), each)
    clock = SimulatedClock()
    server = SimulatedServer(SimulatedGpu(PROFILE, clock=clock), "net", clock, batch_limit=limit)
    server.run(arrivals_s, arrivals_s[-1] + 100.0, 1e9, lambda: None)
    traffic, _ = server.sense(50.0)
    assert (traffic.requests, traffic.largest_request) == (each.size, max(images))
    assert traffic.together == int(each @ each)
    batches = traffic.batches.items()
    ran = sum(size * times.count for size, times in batches) / sum(times.count for _, times in batches)
    assert 0.9 * ran < foretold.at_once.mean[0] < ran + 1.05
    busy_s = sum(times.total_s for _, times in batches)
    at_once = int(foretold.possible[:, 0].argmax())
    assert foretold.busy[at_once, 0] == pytest.approx(busy_s / arrivals_s[-1], rel=0.12)
    assert traffic.latency_p99_ms is not None
    assert (
        0.9 < foretold.longest_s(np.array([at_once]), np.array([0]))[0] * 1e3 / traffic.latency_p99_ms < 1.9
    )


def test_every_image_is_accounted_for() -> None:
    _, served = simulate(1000, 10.0, limit=8)
    assert served.arrived == served.completed > 9000
    assert sum(size * times.count for size, times in served.batches.items()) == served.completed
    assert max(served.batches) <= 8
    _, flooded = simulate(20_000, 1.0, limit=8, max_queue_images=100)
    assert flooded.refused > 0
    assert flooded.arrived == flooded.completed + flooded.refused
    _, hurried = simulate(20_000, 1.0, limit=8, deadline_s=0.02)
    assert hurried.arrived == hurried.completed + hurried.refused + hurried.expired
    assert hurried.latency_p99_ms <= 20.0 + 1e-6, "what cannot be in time is not computed"


def test_runs_repeat_exactly_and_differ_by_seed() -> None:
    first, second, other = (simulate(800, 5.0, seed=seed)[0].latencies_ms.tolist() for seed in (4, 4, 5))
    assert first == second
    assert first != other


def test_acting_changes_the_batch_limit() -> None:
    clock = SimulatedClock()
    server = SimulatedServer(SimulatedGpu(PROFILE, clock=clock), "net", clock, batch_limit=64)
    server.act(OperatingPoint(2, 1000))
    server.run(poisson(3000, 1.0, seed=2), 10.0, 1e9, lambda: None)
    assert max(server.sense(50.0)[0].batches) == 2


def watched(batch_limit: int) -> tuple[SimulatedServer, SimulatedClock]:
    clock = SimulatedClock()
    return SimulatedServer(SimulatedGpu(PROFILE, clock=clock), "net", clock, batch_limit=batch_limit), clock


def test_the_alarm_sounds_once_within_the_arrival_that_is_one_too_many() -> None:
    server, clock = watched(4)
    heard: list[float] = []
    server.watch(Tripwire(5), lambda: heard.append(clock.now_s))
    arrivals = [0.0, *(1e-4 * i for i in range(1, 20))]  # one runs, four are staged, then they wait
    server.run(arrivals, 1.0, 1e9, lambda: None)
    assert heard == [arrivals[1 + 4 + 5]]
    server.watch(Tripwire(0), lambda: heard.append(clock.now_s))
    server.watch(None, lambda: heard.append(clock.now_s))
    server.run([1.0 + time_s for time_s in arrivals], 2.0, 1e9, lambda: None)
    assert len(heard) == 1, "nobody watches any more"


def test_a_surge_sounds_the_alarm_before_a_queue_tells_of_it() -> None:
    server, clock = watched(64)
    heard: list[float] = []
    server.watch(Tripwire(1000, 100.0, 3.5), lambda: heard.append(clock.now_s))
    calm = [0.02 * i for i in range(50)]
    surge = [2.0 + 0.002 * i for i in range(50)]
    server.run(calm + surge, 3.0, 1e9, lambda: None)
    assert heard == [surge[4]], "a fifth of an image leaks away between two: 1, 1.8, 2.6, 3.4, 4.2"


def test_what_the_alarm_changes_holds_at_once() -> None:
    server, _ = watched(1)
    server.watch(Tripwire(8), lambda: server.act(OperatingPoint(64, 1000)))
    server.run([0.0] * 11, 1.0, 1e9, lambda: None)
    # 1 runs, 1 is staged, 9 wait: the alarm makes them one batch.
    assert {size: times.count for size, times in server.sense(50.0)[0].batches.items()} == {1: 2, 9: 1}


def test_the_last_few_batches_are_told_whether_they_were_sensed_or_not() -> None:
    server, _ = watched(64)
    server.run([0.1 * i for i in range(20)], 3.0, 1e9, lambda: None)
    server.sense(50.0)
    server.run([3.0] * 5, 4.0, 1e9, lambda: None)
    latest, arrived = server.so_far()
    assert arrived == 5
    assert {size: times.count for size, times in latest.items()} == {1: LATEST_BATCHES - 1, 5: 1}
    assert latest[5].total_s == pytest.approx(FIXED_S + 5 * PER_IMAGE_S)


def test_images_that_arrive_together_are_batched_together() -> None:
    server, _ = watched(64)
    server.run([0.5] * 20, 1.0, 1e9, lambda: None)
    assert server.latencies_ms.tolist() == pytest.approx([(FIXED_S + 20 * PER_IMAGE_S) * 1e3] * 20)


def test_a_batch_waits_on_an_idle_engine_until_it_is_full_or_the_delay_is_over() -> None:
    server, _ = watched(64)
    server.act(OperatingPoint(3, 1000, max_delay_ms=20.0))
    server.run([0.0, 0.010, 0.5, 0.501, 0.502], 1.0, 1e9, lambda: None)
    delayed_ms, full_ms = 20.0 + (FIXED_S + 2 * PER_IMAGE_S) * 1e3, (FIXED_S + 3 * PER_IMAGE_S) * 1e3
    assert server.latencies_ms.tolist() == pytest.approx(
        [delayed_ms, delayed_ms - 10.0, full_ms + 2.0, full_ms + 1.0, full_ms]
    )


def test_turns_come_on_time_whatever_arrives() -> None:
    server, clock = watched(8)
    turns: list[float] = []
    server.run(poisson(500.0, 3.0, seed=1), 3.5, 0.1, lambda: turns.append(clock.now_s))
    assert turns == [0.1 * i for i in range(1, 36)]
    assert clock.now_s == 3.5


def test_only_changes_of_the_clock_are_counted() -> None:
    clock = SimulatedClock()
    profile = replace(PROFILE, sm_clocks_mhz=(500, 1000))
    server = SimulatedServer(SimulatedGpu(profile, clock=clock), "net", clock, batch_limit=8)
    assert server.clock_changes == 0
    for limit, clock_mhz in ((8, 1000), (4, 1000), (4, 500), (8, 500), (8, 1000)):
        server.act(OperatingPoint(limit, clock_mhz))
    assert server.clock_changes == 2
