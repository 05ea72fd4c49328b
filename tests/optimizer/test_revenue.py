from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.operating_point import OperatingPoint
from optimizer.revenue import BROKEN_SLO, FORMS, Outcome, Targets, profit, score, window_revenue
from optimizer.telemetry import DeviceReading, Energy, EnergySource, Traffic, Window

PRICED = Targets(
    price_per_1000_images=2.0,
    late_penalty_per_1000_images=3.0,
    energy_price_per_kwh=0.3,
    carbon_price_per_kg=0.1,
    grid_g_per_kwh=500.0,
)
counts = st.integers(0, 10**6)


def window(traffic: Traffic, joules: float | None = None) -> Window:
    source = EnergySource.NOT_MEASURED if joules is None else EnergySource.SIMULATED
    return Window(0.0, 1.0, OperatingPoint(8), traffic, DeviceReading(energy=Energy(joules, source)))


def test_profit_by_hand() -> None:
    traffic = Traffic(arrived=1200, completed=1100, late=100, refused=60, expired=40, cancelled=7, failed=3)
    revenue = window_revenue(PRICED, window(traffic, joules=3.6e6))
    assert revenue.income == pytest.approx(2.0)  # 1000 images in time
    assert revenue.penalty == pytest.approx(0.6)  # 200 images late
    assert revenue.energy_cost == pytest.approx(0.35)  # 1 kWh: 0.30 and 0.5 kg of carbon at 0.1
    assert revenue.total == pytest.approx(2.0 - 0.6 - 0.35)


def test_unmeasured_energy_is_left_out_and_said_so() -> None:
    revenue = window_revenue(PRICED, window(Traffic(completed=1000)))
    assert revenue.energy_cost is None
    assert revenue.excludes_energy
    assert revenue.total == pytest.approx(2.0)
    assert not window_revenue(PRICED, window(Traffic(completed=1000), joules=0.0)).excludes_energy


@given(counts, counts, counts, st.floats(0.0, 1e9))
def test_a_window_and_a_prediction_are_scored_alike(
    in_time: int, late: int, refused: int, joules: float
) -> None:
    traffic = Traffic(completed=in_time + late, late=late, refused=refused)
    assert window_revenue(PRICED, window(traffic, joules)) == profit(PRICED, in_time, late + refused, joules)


@given(counts, counts, st.floats(0.0, 1e9), st.floats(1.0, 1e6))
def test_revenue_rises_with_images_and_falls_with_lateness_and_joules(
    in_time: int, late: int, joules: float, more: float
) -> None:
    base = profit(PRICED, in_time, late, joules).total
    assert profit(PRICED, in_time + 1 + more, late, joules).total > base
    assert profit(PRICED, in_time, late + 1 + more, joules).total < base
    assert profit(PRICED, in_time, late, joules + 1e4 * more).total < base


ZEUS = Targets(form="zeus", zeus_eta=0.25, zeus_max_power_w=200.0)


def test_the_neighbouring_forms_by_hand() -> None:
    outcome = Outcome(duration_s=10.0, in_time=100.0, late=1.0, joules=250.0, latency_ms=20.0)
    assert score(Targets(form="energy"), outcome).total == pytest.approx(-2.5)
    assert score(Targets(form="edp"), outcome).total == pytest.approx(-2.5 * 0.02)
    assert score(Targets(form="ed2p"), outcome).total == pytest.approx(-2.5 * 0.02**2)
    assert score(ZEUS, outcome).total == pytest.approx(-(0.25 * 2.5 + 0.75 * 200.0 * 0.02))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "profit"])
def test_more_than_one_late_image_in_a_hundred_outweighs_any_energy(form: str) -> None:
    targets = Targets(form=form)
    kept = score(targets, Outcome(1.0, 99.0, 1.0, joules=1e5, latency_ms=500.0)).total
    broken = score(targets, Outcome(1.0, 98.9, 1.1, joules=1.0, latency_ms=1.0)).total
    worse = score(targets, Outcome(1.0, 50.0, 50.0, joules=0.5, latency_ms=1.0)).total
    assert kept > -BROKEN_SLO > broken > worse


@pytest.mark.parametrize("form", FORMS)
def test_an_array_is_scored_setting_by_setting(form: str) -> None:
    targets = Targets(form=form)
    in_time, late = np.array([10.0, 0.0, 90.0]), np.array([0.0, 0.0, 10.0])
    joules, latency_ms = np.array([5.0, 7.0, 9.0]), np.array([1.0, 2.0, 3.0])
    together = score(targets, Outcome(1.0, in_time, late, joules, latency_ms))
    for at in range(3):
        alone = score(targets, Outcome(1.0, in_time[at], late[at], joules[at], latency_ms[at]))
        for name in ("income", "penalty", "energy_cost", "total"):
            assert getattr(together, name)[at] == pytest.approx(getattr(alone, name))


@pytest.mark.parametrize("form", FORMS)
def test_what_was_not_measured_costs_nothing_in_any_form(form: str) -> None:
    revenue = score(Targets(form=form), Outcome(1.0, 10.0, 0.0, None, 20.0))
    assert revenue.excludes_energy
    assert revenue.form == form
    assert revenue.total == revenue.income - revenue.penalty


@pytest.mark.parametrize("form", FORMS)
def test_an_interval_without_images_has_a_score(form: str) -> None:
    idle, idler = (score(Targets(form=form), Outcome(1.0, 0.0, 0.0, j, 10.0)).total for j in (40.0, 30.0))
    assert idle < idler < 0.0


def test_a_window_is_scored_by_the_form_that_is_wanted() -> None:
    traffic = Traffic(completed=50, latency_p50_ms=10.0)
    assert window_revenue(Targets(form="edp"), window(traffic, 100.0)).total == pytest.approx(-2.0 * 0.01)


def test_a_price_by_time_of_day_has_to_be_settled_first() -> None:
    tariff = PriceSchedule((PriceStep(0.0, 0.1), PriceStep(3600.0, 0.4)))
    targets = Targets(energy_price_per_kwh=tariff, carbon_price_per_kg=0.0)
    with pytest.raises(ValueError, match=r"Targets\.at"):
        profit(targets, 1.0, 0.0, 1.0)
    costs = [profit(targets.at(time_s), 0.0, 0.0, 3.6e6).energy_cost for time_s in (0.0, 3600.0)]
    assert costs == pytest.approx([0.1, 0.4])
