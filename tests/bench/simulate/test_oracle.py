from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.simulate.fixed_settings import FixedSettings
from bench.simulate.oracle import CAP_TOLERANCE, static_oracle
from bench.simulate.run import simulate_fixed
from bench.simulate.scenario import Scenario, default_point, grid_of
from optimizer.targets import Targets
from optimizer.twin.arrivals import Times, mmpp, poisson
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.profile import load_profile
from optimizer.twin.surface import ClockSweep, SurfacePhysics

V100 = load_profile("v100")
FEW = replace(V100, sm_clocks_mhz=V100.sm_clocks_mhz[::-12][::-1])
TARGETS = Targets(slo_p99_ms=25.0, price_per_1000_images=1e-4, late_penalty_per_1000_images=1e-4)
STEADY, BURSTY = poisson(1500.0, 3.0, seed=1), mmpp((300.0, 4000.0), (0.5, 0.5), 3.0, seed=2)


def scenario(arrivals_s: Times = STEADY, targets: Targets = TARGETS) -> Scenario:
    return Scenario(FEW, "resnet50", arrivals_s, 3.0, targets, seed=1, max_batch=24)


@pytest.mark.parametrize("arrivals_s", [STEADY, BURSTY], ids=["steady", "bursty"])
@pytest.mark.parametrize("form", ["profit", "edp"])
def test_it_is_as_good_as_trying_every_setting(arrivals_s: Times, form: str) -> None:
    asked = scenario(arrivals_s, replace(TARGETS, form=form))
    best = max(simulate_fixed(asked, point).revenue for point in grid_of(asked))
    point, run = static_oracle(asked, processes=1)
    assert run.revenue == pytest.approx(best, rel=1e-4)
    assert run.revenue == simulate_fixed(asked, point).revenue
    assert run.revenue >= simulate_fixed(asked, default_point(asked)).revenue


def rough(seed: int) -> GpuProfile:
    """A card measured so badly that neighbouring points differ by chance."""
    random = np.random.default_rng(seed)

    def sweep(batch: int) -> ClockSweep:
        clocks = tuple(range(400, 1401, 200))
        base_ms, ms_per_image = random.uniform(1.0, 4.0), random.uniform(0.1, 0.6)
        times = [(base_ms + ms_per_image * batch) * 1400 / c * random.uniform(0.85, 1.15) for c in clocks]
        powers = [(50 + 5 * batch**0.5 + c / 8) * random.uniform(0.85, 1.15) for c in clocks]
        return ClockSweep(batch, clocks, tuple(sorted(times, reverse=True)), tuple(sorted(powers)))

    surface = SurfacePhysics(tuple(sweep(batch) for batch in (1, 2, 4, 8, 16, 32)))
    return replace(
        V100, sm_clocks_mhz=tuple(range(400, 1401, 50)), boost_clock_mhz=1400, models={"net": surface}
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_as_good_as_trying_every_setting_of_a_rough_surface(seed: int) -> None:
    asked = replace(
        scenario(poisson(700.0, 2.0, seed=seed)), profile=rough(seed), model="net", duration_s=2.0
    )
    settings = FixedSettings(asked)
    best = max(settings.serve(point).account.revenue for point in grid_of(asked))
    default = simulate_fixed(asked, default_point(asked)).revenue
    _, run = static_oracle(asked, processes=1)
    assert run.revenue - default >= 0.98 * (best - default)


def test_several_processes_find_the_same() -> None:
    (alone, first), (together, second) = (static_oracle(scenario(), processes=n) for n in (1, 2))
    assert (alone, first.revenue) == (together, second.revenue)


def test_a_power_cap_is_obeyed_before_anything_is_earned() -> None:
    _, free = static_oracle(scenario(), processes=1)
    cap_w = 0.8 * free.peak_power_w
    _, capped = static_oracle(scenario(targets=replace(TARGETS, power_cap_w=cap_w)), processes=1)
    assert capped.peak_power_w <= cap_w * (1.0 + CAP_TOLERANCE)
    assert capped.revenue < free.revenue


def test_impatient_clients_are_searched_with_the_production_queue() -> None:
    few = replace(FEW, sm_clocks_mhz=(607, 1095, 1530))
    hurried = replace(scenario(), profile=few, max_batch=4, deadline_s=0.02, arrivals_s=STEADY[STEADY < 1.0])
    best = max(simulate_fixed(hurried, point).revenue for point in grid_of(hurried))
    assert static_oracle(hurried, processes=1)[1].revenue == best


def test_the_winner_is_remembered_for_the_same_scenario_only(tmp_path: Path) -> None:
    searched: list[int] = []
    first = static_oracle(scenario(), processes=1, cache=tmp_path, progress=searched.append)[0]
    tried = len(searched)
    assert tried > 0
    assert static_oracle(scenario(), processes=1, cache=tmp_path, progress=searched.append)[0] == first
    assert len(searched) == tried, "not searched again"
    static_oracle(replace(scenario(), seed=2), processes=1, cache=tmp_path, progress=searched.append)
    assert len(searched) > tried


def test_a_damaged_memory_is_searched_again(tmp_path: Path) -> None:
    first = static_oracle(scenario(), processes=1, cache=tmp_path)[0]
    (remembered,) = tmp_path.iterdir()
    remembered.write_text('["not", "a", "setting"', encoding="utf-8")
    assert static_oracle(scenario(), processes=1, cache=tmp_path)[0] == first


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    assert static_oracle(scenario(), processes=1, cache=blocked)[0] in grid_of(scenario())
