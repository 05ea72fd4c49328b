"""Windows with few images are put together until they are evidence, and only what belongs together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from fluid_plant import GRID

from optimizer.devices.simulated import SimulatedGpu
from optimizer.governor import Governor, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.evidence import LEAST_IMAGES, USUALLY, Enough, enough_of, why_unfit
from optimizer.policies.pooling import Pool
from optimizer.policies.registry import make_policy
from optimizer.revenue import Targets, late_images
from optimizer.telemetry import (
    NOT_MEASURED,
    BatchTimes,
    DeviceReading,
    Energy,
    EnergySource,
    EventReason,
    Traffic,
    Window,
)
from optimizer.twin.arrivals import poisson
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.physics import ParametricPhysics
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock, SimulatedServer

FEW = 8
POINT = replace(GRID.default, max_delay_ms=5.0)
READING = DeviceReading(Energy(40.0, EnergySource.SIMULATED), sm_clock_mhz=1500)


def seen(second: int, point: OperatingPoint = POINT, **device: object) -> Window:
    """A second with few images, each alone; the later the second, the longer they took."""
    traffic = Traffic(
        arrived=FEW,
        completed=FEW,
        late=1,
        queued=second,
        latency_p50_ms=10.0 + second,
        latency_p95_ms=20.0 + second,
        latency_p99_ms=30.0 + second,
        batches={1: BatchTimes(FEW, 0.08), second + 2: BatchTimes(1, 0.02)},
        requests=FEW,
        together=FEW,
        largest_request=1 + second,
    )
    reading = replace(READING, **device)  # type: ignore[arg-type]  # fields of a reading
    return Window(float(second), second + 1.0, point, traffic, reading)


def test_few_images_add_up_to_evidence_and_what_was_used_is_not_used_again() -> None:
    pool = Pool()
    first, second, third = (pool.add(seen(number), settled=True) for number in range(3))
    assert why_unfit(first, settled=True) == f"only {FEW} images to learn from, {LEAST_IMAGES} are needed"
    assert why_unfit(second, settled=True) is not None
    assert why_unfit(third, settled=True) is None
    assert pool.add(seen(3), settled=True) == seen(3)


def test_batches_add_up_to_evidence_where_a_few_have_images_enough() -> None:
    pool, ran = Pool(), {3 * LEAST_IMAGES: BatchTimes(3, 0.9)}
    large = [replace(seen(number), traffic=replace(seen(number).traffic, batches=ran)) for number in range(3)]
    few = Enough(1, USUALLY.batches)
    first, second, third = (pool.add(window, settled=True, enough=few) for window in large)
    assert why_unfit(first, settled=True, enough=few) == "only 3 batches to learn from, 8 are needed"
    assert why_unfit(second, settled=True, enough=few) is not None
    assert why_unfit(third, settled=True, enough=few) is None
    assert not pool.collects


def test_a_first_window_and_one_in_need_count_with_a_single_batch() -> None:
    ran = {LEAST_IMAGES: BatchTimes(1, 0.9)}
    window = replace(seen(0), traffic=Traffic(completed=LEAST_IMAGES, batches=ran))
    assert why_unfit(window, settled=True, enough=enough_of(begun=True)) is not None
    for enough in (enough_of(begun=False), enough_of(begun=True, missed=True)):
        assert why_unfit(window, settled=True, enough=enough) is None
        assert Pool().add(window, settled=True, enough=enough) == window


def test_what_goes_together_adds_up() -> None:
    pool = Pool()
    pool.add(seen(0), settled=True)
    both = pool.add(seen(1), settled=True)
    traffic = both.traffic
    assert (both.start_s, both.end_s, both.duration_s) == (0.0, 2.0, 2.0)
    assert (traffic.arrived, traffic.completed, traffic.late, traffic.queued) == (2 * FEW, 2 * FEW, 2, 1)
    assert traffic.batches == {1: BatchTimes(2 * FEW, 0.16), 2: BatchTimes(1, 0.02), 3: BatchTimes(1, 0.02)}
    assert (traffic.latency_p50_ms, traffic.latency_p95_ms, traffic.latency_p99_ms) == (10.5, 21.0, 31.0)
    assert (traffic.requests, traffic.together, traffic.largest_request) == (2 * FEW, 2 * FEW, 2)
    assert both.device.energy == Energy(80.0, EnergySource.SIMULATED)


def test_a_second_without_an_answer_counts_with_its_energy() -> None:
    pool = Pool()
    pool.add(seen(0), settled=True)
    both = pool.add(replace(seen(1), traffic=Traffic()), settled=True)
    assert (both.traffic.completed, both.traffic.latency_p50_ms, both.duration_s) == (FEW, 10.0, 2.0)
    assert both.device.energy.joules == 80.0


def test_seconds_without_an_answer_are_not_waited_through() -> None:
    pool = Pool()
    pool.add(replace(seen(0), traffic=Traffic(latency_p50_ms=0.0)), settled=True)
    assert pool.add(seen(1), settled=True) == seen(1)


def test_energy_that_was_not_measured_throughout_is_not_measured() -> None:
    pool = Pool()
    pool.add(seen(0), settled=True)
    assert pool.add(seen(1, energy=NOT_MEASURED), settled=True).device.energy == NOT_MEASURED


@pytest.mark.parametrize(
    "other",
    [
        seen(1, replace(POINT, sm_clock_mhz=1200)),
        seen(1, replace(POINT, max_delay_ms=0.0)),
        seen(1, event_reasons=EventReason.HW_SLOWDOWN),
        seen(1, clock_not_taken="1500 MHz was asked for, 900 MHz is in force"),
        seen(7),
    ],
    ids=["another clock", "without a delay", "throttled", "clock not taken", "later"],
)
def test_what_does_not_go_together_stays_apart(other: Window) -> None:
    pool = Pool()
    pool.add(seen(0), settled=True)
    assert pool.add(other, settled=True) == other


def test_while_a_clock_settles_nothing_is_put_together() -> None:
    pool = Pool()
    pool.add(seen(0), settled=True)
    assert pool.add(seen(1), settled=False) == seen(1)
    assert pool.add(seen(2), settled=True) == seen(2)


# Slow networks in closed loop


def slow_v100(times: float) -> GpuProfile:
    """The simulated V100 with a network that takes so many times as long."""
    v100 = load_profile("v100")
    network = v100.model("resnet50")
    assert isinstance(network, ParametricPhysics)
    slow = replace(
        network,
        launch_ms=times * network.launch_ms,
        memory_ms=times * network.memory_ms,
        memory_ms_per_image=times * network.memory_ms_per_image,
        compute_ms=times * network.compute_ms,
        compute_ms_per_image=times * network.compute_ms_per_image,
    )
    return replace(v100, models={"slow": slow})


def governed(policy: str, rate_per_s: float, seconds: float, slo_ms: float) -> list[Record]:
    """Play single images on a network that takes 40 times as long as it does."""
    profile, clock = slow_v100(40.0), SimulatedClock()
    grid = OperatingGrid(tuple(range(1, 65)), profile.sm_clocks_mhz)
    gpu = SimulatedGpu(profile, clock=clock, rng_seed=1)
    server = SimulatedServer(gpu, "slow", clock, batch_limit=64)
    targets = Targets(slo_p99_ms=slo_ms)
    governor = Governor(server, make_policy(policy, grid, targets, None), grid, targets, clock)
    governor.hear = lambda: _heard(governor)
    governor.start()
    records: list[Record] = []
    server.run(poisson(rate_per_s, seconds, seed=1), seconds, 1.0, lambda: records.append(governor.step()))
    return records


def _heard(governor: Governor) -> None:
    governor.alarm()


def energy_j(records: list[Record]) -> float:
    return sum(record.window.device.energy.joules or 0.0 for record in records)


@pytest.mark.parametrize("rate", [4.0, 15.0])
def test_a_network_of_a_few_images_a_second_is_governed_too(rate: float) -> None:
    ours, default = (governed(policy, rate, 300.0, 1500.0) for policy in ("boulton", "default"))
    late = sum(late_images(record.window.traffic) for record in ours)
    assert late <= 0.01 * sum(record.window.traffic.completed for record in ours)
    assert energy_j(ours[150:]) < 0.9 * energy_j(default[150:])


@pytest.mark.parametrize("rate", [15.0, 30.0])
def test_slow_batches_do_not_make_it_try_one_clock_after_the_other(rate: float) -> None:
    """What a few batches draw differs by chance, which is no reason to be curious of the next clock."""
    clocks_mhz = [record.decision.point.sm_clock_mhz for record in governed("boulton", rate, 300.0, 1500.0)]
    assert sum(one != other for one, other in pairwise(clocks_mhz)) <= 25


def test_before_enough_was_seen_the_reason_says_so() -> None:
    first = governed("boulton", 5.0, 2.0, 1500.0)[0].decision
    assert "nothing learned yet" in first.reason
    assert "images to learn from, 20 are needed" in first.learned
