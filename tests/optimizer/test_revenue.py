from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Targets, load_targets, profit, window_revenue
from optimizer.settings_table import SettingsError
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


def test_targets_are_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('slo_p99_ms = 20\nprice_per_1000_images = 0.5\npower_cap_w = 200\nform = "profit"\n')
    assert load_targets(file) == Targets(slo_p99_ms=20.0, price_per_1000_images=0.5, power_cap_w=200.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("slo_p99 = 20", "unknown key 'slo_p99'; allowed are .*slo_p99_ms"),
        ("slo_p99_ms = 'fast'", "slo_p99_ms = 'fast' is not allowed; expected a number"),
        ("slo_p99_ms = true", "slo_p99_ms = True is not allowed"),
        ("slo_p99_ms = 0", "slo_p99_ms = 0 .*greater than 0"),
        ("slo_p99_ms = nan", "slo_p99_ms = nan"),
        ("energy_price_per_kwh = -0.1", "energy_price_per_kwh = -0.1 is not allowed"),
        ("energy_price_per_kwh = 'day.csv'", "CSV file are not supported yet"),
        ("power_cap_w = -5", "power_cap_w = -5"),
        ("power_cap_w = 0", "power_cap_w = 0 .*greater than 0"),
        ("form = 'magic'", "form = 'magic' .*expected one of profit"),
        ("slo_p99_ms = ", "not valid TOML"),
    ],
)
def test_bad_targets_are_refused_with_what_is_allowed(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "targets.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_targets(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_targets(tmp_path / "absent.toml")


def test_targets_made_in_code_are_checked_too() -> None:
    with pytest.raises(ValueError, match="carbon_price_per_kg"):
        Targets(carbon_price_per_kg=-1.0)
    with pytest.raises(ValueError, match="slo_p99_ms"):
        Targets(slo_p99_ms=float("inf"))
