"""SLO, traffic and price: rules that must hold for any card."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bench.simulate.oracle import static_oracle
from bench.tournament.fixed_price import ENERGY_SHARE, TOLERANCE, find_price, price_for
from bench.tournament.ground import lay_ground, scenario_of
from bench.tournament.hindsight import Hindsight
from bench.tournament.plan import SLOS, TRAFFICS, Cell, Settings
from bench.tournament.results import Fixed
from bench.tournament.score import Score
from bench.tournament.slo import boost_batch_s, demands_of
from bench.tournament.traffic import arrivals_of, peak_rate
from optimizer.operating_point import OperatingPoint
from optimizer.targets import Targets
from optimizer.twin.profile import load_profile, shipped_profiles

EVERY_NETWORK = [(gpu, model) for gpu in shipped_profiles() for model in load_profile(gpu).models]


@pytest.mark.parametrize(("gpu", "model"), EVERY_NETWORK)
@pytest.mark.parametrize("slo", SLOS)
def test_two_batches_of_the_fast_point_fit_the_slo_and_no_larger_two(gpu: str, model: str, slo: str) -> None:
    profile = load_profile(gpu)
    demands = demands_of(profile, model, slo, 128)
    batch = demands.fast_point.batch_limit
    assert 2e3 * boost_batch_s(profile, model, batch) <= demands.slo_ms
    assert batch == 128 or 2e3 * boost_batch_s(profile, model, batch + 1) > demands.slo_ms
    assert demands.capacity == pytest.approx(batch / boost_batch_s(profile, model, batch))


def test_slos_ascend_and_come_from_the_times_of_one_image_and_of_the_largest_batch(card: str) -> None:
    profile = load_profile(card)
    tight, medium, loose = (demands_of(profile, "little", slo, 32).slo_ms for slo in SLOS)
    assert tight == pytest.approx(4 * 8.0)
    assert medium == pytest.approx(4 * (8.0 * 70.0) ** 0.5)
    assert loose == pytest.approx(4 * 70.0)


@pytest.mark.parametrize("traffic", TRAFFICS)
def test_traffic_stays_within_its_peak_and_depends_on_the_seed_alone(traffic: str) -> None:
    times = arrivals_of(traffic, 1000.0, 100.0, seed=3)
    assert np.array_equal(times, arrivals_of(traffic, 1000.0, 100.0, seed=3))
    assert not np.array_equal(times, arrivals_of(traffic, 1000.0, 100.0, seed=4))
    busiest = max(Counter(times.astype(int).tolist()).values())
    assert busiest <= peak_rate(traffic, 1000.0) + 5 * peak_rate(traffic, 1000.0) ** 0.5
    assert times[-1] < 100.0


def test_a_step_is_tenfold_and_a_flash_crowd_comes_back() -> None:
    counts = np.bincount(arrivals_of("step-x10", 10_000.0, 100.0, seed=0).astype(int), minlength=100)
    assert counts[50:].sum() / counts[:50].sum() == pytest.approx(10.0, rel=0.02)
    crowd = np.bincount(arrivals_of("flash-crowd", 10_000.0, 200.0, seed=0).astype(int), minlength=200)
    assert crowd[:79].mean() == pytest.approx(1000.0, rel=0.03)
    assert crowd[90:110].mean() == pytest.approx(7500.0, rel=0.03)
    assert crowd[150:].mean() == pytest.approx(1000.0, rel=0.03)


def _fixed(energy_cost: float, in_time: int, price: float) -> Fixed:
    income = price / 1000.0 * in_time
    score = Score(income - energy_cost, income, 0.0, energy_cost, in_time, in_time, 0, 1.0, 1.0, 1.0, 1.0)
    return Fixed(OperatingPoint(1), score)


def test_the_price_follows_the_best_setting_to_its_energy_share() -> None:
    """The better the price, the more energy the best setting takes: the first price is not the last."""

    def best_under(price: float) -> Fixed:
        return _fixed(energy_cost=1.0 + 0.1 * price, in_time=1000, price=price)

    first = _fixed(energy_cost=3.0, in_time=1000, price=1.0)
    priced = find_price(first, best_under)
    assert priced.energy_share == pytest.approx(ENERGY_SHARE, abs=TOLERANCE)
    assert priced.price_per_1000_images != pytest.approx(price_for(first), rel=0.1)


def test_no_price_makes_a_setting_pay_that_answers_nothing_in_time() -> None:
    with pytest.raises(ValueError, match="nothing in time"):
        price_for(_fixed(energy_cost=1.0, in_time=0, price=1.0))


def test_the_ground_of_a_cell_on_an_unknown_card(card: str) -> None:
    cell, settings = Cell(card, "little", "steady-low", "medium"), Settings(duration_s=20.0, max_batch=32)
    ground = lay_ground(cell, settings)
    assert ground.energy_share == pytest.approx(ENERGY_SHARE, abs=TOLERANCE)
    assert ground.default.point == OperatingPoint(32, 1000)
    assert ground.oracle.score.revenue > ground.default.score.revenue
    best = ground.oracle.score
    assert best.revenue == pytest.approx(best.income - best.penalty - best.energy_cost)
    assert set(ground.forms) == {"profit", "energy", "edp", "ed2p", "zeus"}
    profit = ground.forms["profit"]
    assert (profit.default, profit.best) == pytest.approx(
        (ground.default.score.revenue, ground.oracle.score.revenue)
    )
    assert all(answer.best >= answer.default for answer in ground.forms.values())
    assert scenario_of(cell, settings, ground.targets).arrivals_s.size == best.images_arrived


@pytest.mark.parametrize("form", ["profit", "edp"])
def test_hindsight_finds_what_the_static_oracle_finds(card: str, form: str) -> None:
    cell, settings = Cell(card, "little", "step-x10", "medium"), Settings(duration_s=10.0, max_batch=32)
    prices = {"price_per_1000_images": 0.001, "late_penalty_per_1000_images": 0.001}
    targets = Targets(slo_p99_ms=95.0, form=form, zeus_max_power_w=200.0, **prices)
    scenario = scenario_of(cell, settings, targets)
    hindsight, (point, run) = Hindsight(scenario), static_oracle(scenario, processes=1)
    assert hindsight.best(targets) == point
    assert hindsight.worth(point, targets) == pytest.approx(run.revenue)
