from __future__ import annotations

import dataclasses
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.gpu import DeviceError, Gpu
from optimizer.devices.simulated import SimulatedGpu
from optimizer.telemetry import EnergySource, EventReason
from optimizer.twin.gpu_profile import GpuProfile, Noise, PowerSensor
from optimizer.twin.slowdown import Slowdown


class Net:
    """One millisecond an image at 1000 MHz, 100 W; all of it in proportion to the clock."""

    def batch_s(self, batch: int, clock_mhz: float) -> float:
        return batch / clock_mhz

    def busy_power_w(self, batch: int, clock_mhz: float) -> float:
        return clock_mhz / 10 + (50 if batch >= 100 else 0)


PROFILE = GpuProfile(
    name="toy",
    source="tests",
    sm_clocks_mhz=(500, 800, 1000),
    boost_clock_mhz=1000,
    power_limit_w=140,
    idle_power_w=20,
    clock_switch_s=(0.1, 0.2),
    power_sensor=PowerSensor(period_s=0.25, window_s=0.125),
    energy_counter_period_s=0.25,
    noise=Noise(),
    models={"net": Net()},
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gpu(clock: Clock) -> SimulatedGpu:
    return SimulatedGpu(PROFILE, clock=clock)


def joules(gpu: SimulatedGpu) -> float:
    energy = gpu.read().energy
    assert energy.joules is not None
    assert energy.source is EnergySource.SIMULATED
    return energy.joules


def test_it_is_a_gpu_that_says_it_is_simulated(gpu: SimulatedGpu) -> None:
    device: Gpu = gpu
    assert (device.uuid, device.simulated) == ("simulated-toy", True)
    assert device.sm_clocks_mhz == (500, 800, 1000)


def test_energy_is_idle_power_and_what_batches_add(gpu: SimulatedGpu, clock: Clock) -> None:
    assert joules(gpu) == 0.0
    assert gpu.execute("net", 90) == pytest.approx(0.09)
    clock.now_s = 1.0
    assert joules(gpu) == pytest.approx(20 * 1.0 + (100 - 20) * 0.09)
    clock.now_s = 2.0
    assert joules(gpu) == pytest.approx(20.0)


def test_the_counter_moves_only_at_its_period(gpu: SimulatedGpu, clock: Clock) -> None:
    gpu.read()
    clock.now_s = 0.24
    assert joules(gpu) == 0.0
    clock.now_s = 0.26
    assert joules(gpu) == pytest.approx(20 * 0.25)


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 90), st.booleans()), max_size=30))
def test_however_often_it_is_read_the_sum_is_the_same(steps: list[tuple[float, int, bool]]) -> None:
    clock = Clock()
    often, once = (SimulatedGpu(PROFILE, clock=clock) for _ in range(2))
    total_j = joules(often) + joules(once)
    for wait_s, batch, read in steps:
        seconds = often.execute("net", batch)
        assert once.execute("net", batch) == seconds
        clock.now_s += seconds + wait_s
        total_j += joules(often) if read else 0.0
    clock.now_s += 1.0
    assert total_j + joules(often) == pytest.approx(joules(once))


def test_power_is_the_mean_over_the_sensors_last_window(gpu: SimulatedGpu, clock: Clock) -> None:
    clock.now_s = 0.1875
    gpu.execute("net", 62)
    clock.now_s = 0.3
    reading = gpu.read()
    assert reading.power_w == pytest.approx((20 * 0.0635 + 100 * 0.0615 + 20 * 0.0) / 0.125, rel=0.02)
    clock.now_s = 2.0
    assert gpu.read().power_w == pytest.approx(20.0)


def test_a_clock_comes_into_force_after_its_delay(gpu: SimulatedGpu, clock: Clock) -> None:
    gpu.set_sm_clock_mhz(500)
    clock.now_s = 0.099
    assert gpu.read().sm_clock_mhz == 1000
    assert gpu.execute("net", 10) == pytest.approx(0.010)
    clock.now_s = 0.2
    assert gpu.read().sm_clock_mhz == 500
    assert gpu.execute("net", 10) == pytest.approx(0.020)
    gpu.set_sm_clock_mhz(None)
    clock.now_s = 1.0
    assert gpu.read().sm_clock_mhz == 1000


def test_an_illegal_clock_is_refused_and_changes_nothing(gpu: SimulatedGpu, clock: Clock) -> None:
    with pytest.raises(
        DeviceError, match="501 MHz is not legal; choose one of its 3 clocks from 500 to 1000"
    ):
        gpu.set_sm_clock_mhz(501)
    clock.now_s = 1.0
    assert gpu.read().sm_clock_mhz == 1000


def test_the_power_limit_slows_down_and_is_reported_once(gpu: SimulatedGpu, clock: Clock) -> None:
    assert gpu.execute("net", 100) == pytest.approx(100 / 800)
    reading = gpu.read()
    assert reading.event_reasons == EventReason.SW_POWER_CAP
    assert reading.sm_clock_mhz == 800
    clock.now_s = 1.0
    reading = gpu.read()
    assert reading.event_reasons == EventReason.GPU_IDLE
    assert reading.sm_clock_mhz == 1000


def test_the_limiter_needs_its_time_to_settle_and_to_let_go(clock: Clock) -> None:
    gpu = SimulatedGpu(dataclasses.replace(PROFILE, power_cap_settle_s=0.2), clock=clock)
    seen: list[tuple[float, float]] = []
    while clock.now_s < 0.5:
        seen.append((clock.now_s, 100 / gpu.execute("net", 100)))
        clock.now_s += 100 / seen[-1][1]
    assert seen[0] == (0.0, pytest.approx(1000)), "at first the clock that was asked for"
    assert {round(speed) for time, speed in seen if time >= 0.2} == {800}, "then the largest within the limit"
    reading = gpu.read()
    assert reading.event_reasons & EventReason.SW_POWER_CAP
    assert reading.sm_clock_mhz == 800
    clock.now_s += 0.1
    assert gpu.execute("net", 100) == pytest.approx(100 / 800), "a short pause changes nothing"
    clock.now_s += 1.0
    assert gpu.execute("net", 100) == pytest.approx(100 / 1000), "after a long one it starts anew"


def test_on_its_way_down_the_clock_passes_through_legal_clocks(clock: Clock) -> None:
    limited = dataclasses.replace(
        PROFILE, sm_clocks_mhz=(500, 800, 850, 900, 950, 1000), power_cap_settle_s=1.0, power_limit_w=135
    )
    gpu = SimulatedGpu(limited, clock=clock)
    speeds = []
    for tick in range(12):
        clock.now_s = tick * 0.125
        speeds.append(round(100 / gpu.execute("net", 100)))
    assert speeds == sorted(speeds, reverse=True)
    assert set(speeds) == {1000, 950, 900, 850}


def test_a_hot_card_runs_slower_for_a_while_and_says_why(gpu: SimulatedGpu, clock: Clock) -> None:
    gpu.slow_down(Slowdown(500, 1.0, 2.0))
    gpu.slow_down(Slowdown(800, 1.5, 3.0, EventReason.HW_THERMAL_SLOWDOWN))
    told: list[tuple[float, int | None, EventReason]] = []
    for now_s in (0.5, 1.25, 1.75, 2.5, 3.5, 4.5):
        clock.now_s = now_s
        assert gpu.execute("net", 10) == pytest.approx(10 / {1.25: 500, 1.75: 500, 2.5: 800}.get(now_s, 1000))
        reading = gpu.read()
        told.append((now_s, reading.sm_clock_mhz, reading.event_reasons))
    soft, hard = EventReason.SW_THERMAL_SLOWDOWN, EventReason.HW_THERMAL_SLOWDOWN
    assert told == [
        (0.5, 1000, EventReason.NONE),
        (1.25, 500, soft),
        (1.75, 500, soft | hard),
        (2.5, 800, soft | hard),  # the first one ended after the reading before
        (3.5, 1000, hard),
        (4.5, 1000, EventReason.NONE),
    ]


def test_a_slowdown_does_not_forget_the_clock_that_was_asked_for(gpu: SimulatedGpu, clock: Clock) -> None:
    gpu.slow_down(Slowdown(800, 0.0, 2.0))
    gpu.set_sm_clock_mhz(500)
    clock.now_s = 1.0
    assert gpu.read().sm_clock_mhz == 500, "a slowdown is no floor"
    gpu.set_sm_clock_mhz(1000)
    clock.now_s = 1.5
    assert gpu.read().sm_clock_mhz == 800
    clock.now_s = 2.5
    assert gpu.read().sm_clock_mhz == 1000


@pytest.mark.parametrize(
    ("clock_mhz", "start_s", "end_s", "reason"),
    [
        (501, 0.0, 1.0, EventReason.SW_THERMAL_SLOWDOWN),
        (500, 1.0, 1.0, EventReason.SW_THERMAL_SLOWDOWN),
        (500, 0.0, 1.0, EventReason.GPU_IDLE),
        (500, 0.0, 1.0, EventReason.NONE),
    ],
)
def test_a_slowdown_that_cannot_be_is_refused(
    gpu: SimulatedGpu, clock_mhz: int, start_s: float, end_s: float, reason: EventReason
) -> None:
    with pytest.raises(ValueError, match="slowdown"):
        gpu.slow_down(Slowdown(clock_mhz, start_s, end_s, reason))


def test_the_counter_counts_whole_millijoules(clock: Clock) -> None:
    odd = dataclasses.replace(PROFILE, idle_power_w=20.0004, energy_counter_period_s=0.0)
    counted = SimulatedGpu(odd, clock=clock)
    counted.read()
    clock.now_s = 1.0
    assert joules(counted) * 1e3 == pytest.approx(20_000, abs=1e-6), "and not 20 000.4"


def test_noise_has_the_stated_size_and_is_repeatable(clock: Clock) -> None:
    noisy = dataclasses.replace(PROFILE, noise=Noise(latency_cv=0.05, power_cv=0.0))
    first, second = (SimulatedGpu(noisy, clock=clock, rng_seed=3) for _ in range(2))
    times = [first.execute("net", 10) for _ in range(2000)]
    assert [second.execute("net", 10) for _ in range(2000)] == times
    mean = sum(times) / len(times)
    deviation = (sum((time - mean) ** 2 for time in times) / len(times)) ** 0.5
    assert mean == pytest.approx(0.010, rel=0.01)
    assert deviation / mean == pytest.approx(0.05, rel=0.1)


def test_bad_batches_are_refused(gpu: SimulatedGpu) -> None:
    with pytest.raises(KeyError, match="no model 'vgg'"):
        gpu.execute("vgg", 1)
    with pytest.raises(ValueError, match="at least 1 image"):
        gpu.execute("net", 0)


def test_the_engine_thread_and_the_governor_may_use_it_together() -> None:
    profile = dataclasses.replace(PROFILE, energy_counter_period_s=0.0)
    clock = Clock()
    gpu = SimulatedGpu(profile, clock=clock)
    gpu.read()
    totals: list[float] = []

    def engine() -> None:
        for _ in range(3000):
            gpu.execute("net", 10)

    def governor() -> None:
        totals.append(sum(joules(gpu) for _ in range(300)))

    threads = [Thread(target=work) for work in (engine, governor, engine)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now_s = 100.0
    assert sum(totals) + joules(gpu) == pytest.approx(20 * 100 + 80 * 6000 * 0.010)


def test_the_energy_used_is_known_exactly_between_the_ticks_of_the_counter(
    gpu: SimulatedGpu, clock: Clock
) -> None:
    clock.now_s = 0.1
    gpu.execute("net", 50)  # 0.05 s at 100 W
    clock.now_s = 0.12
    assert gpu.used_j() == pytest.approx(0.1 * 20 + 0.02 * 100)
    clock.now_s = 0.2
    assert gpu.used_j() == pytest.approx(0.2 * 20 + 0.05 * 80)
