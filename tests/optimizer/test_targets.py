from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.settings_table import SettingsError
from optimizer.targets import Targets, load_targets


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
        ("energy_price_per_kwh = 'absent.csv'", r"energy_price_per_kwh: .*absent\.csv: cannot be read"),
        ("energy_price_per_kwh = [1, 2]", "energy_price_per_kwh = .1, 2. is not allowed; expected a number"),
        ("slo_p99_ms = 'day.csv'", "slo_p99_ms = 'day.csv' is not allowed"),
        ("power_cap_w = -5", "power_cap_w = -5"),
        ("power_cap_w = 0", "power_cap_w = 0 .*greater than 0"),
        ("form = 'magic'", "form = 'magic' .*expected one of profit, energy, edp, ed2p, zeus"),
        ("form = 3", "form = 3 is not allowed"),
        ("zeus_eta = 1.5", "zeus_eta = 1.5 .*from 0 to 1"),
        ("zeus_max_power_w = 0", "zeus_max_power_w = 0 .*greater than 0"),
        ("slo_p99_ms = ", "not valid TOML"),
        (f"slo_p99_ms = {10**400}", "slo_p99_ms = 1000"),
        (f"slo_p99_ms = {'[' * 10_000}", "not valid TOML"),
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
    with pytest.raises(ValueError, match="price_per_1000_images = '1'"):
        Targets(price_per_1000_images="1")  # type: ignore[arg-type]
    assert Targets(zeus_eta=1.0).zeus_eta == 1.0


def test_a_price_file_is_looked_up_beside_the_targets(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices/day.csv").write_text("time,price_per_kwh\n06:00,0.3\n22:30,0.1\n")
    file = tmp_path / "targets.toml"
    file.write_text('energy_price_per_kwh = "prices/day.csv"\n')
    targets = load_targets(file)
    assert targets.energy_price_per_kwh == PriceSchedule((PriceStep(21600.0, 0.3), PriceStep(81000.0, 0.1)))
    assert targets.at(7 * 3600.0) == Targets(energy_price_per_kwh=0.3)
    assert targets.at(3 * 3600.0) == Targets(energy_price_per_kwh=0.1)


def test_one_price_is_the_same_all_day() -> None:
    targets = Targets(energy_price_per_kwh=0.2)
    assert targets.at(1.0) is targets
    assert targets.price_per_joule == pytest.approx((0.2 + 0.3 * 0.08) / 3.6e6)
