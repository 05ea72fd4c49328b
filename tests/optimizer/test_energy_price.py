from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.energy_price import PriceSchedule, PriceStep, load_price_schedule
from optimizer.settings_table import SettingsError

HOUR_S = 3600.0
TARIFF = PriceSchedule((PriceStep(6 * HOUR_S, 0.3), PriceStep(17 * HOUR_S, 0.5), PriceStep(22 * HOUR_S, 0.1)))


@pytest.mark.parametrize(
    ("time_of_day_s", "price"),
    [
        (6 * HOUR_S, 0.3),
        (17 * HOUR_S - 1e-6, 0.3),
        (17 * HOUR_S, 0.5),
        (23.9 * HOUR_S, 0.1),
        (0.0, 0.1),
        (5.99 * HOUR_S, 0.1),
        (30 * HOUR_S, 0.3),
        (-1.0, 0.1),
    ],
)
def test_a_price_holds_until_the_next_and_past_midnight(time_of_day_s: float, price: float) -> None:
    assert TARIFF.at(time_of_day_s) == price


@given(st.floats(0.0, 1e7))
def test_every_day_costs_the_same(time_s: float) -> None:
    assert TARIFF.at(time_s % 86400.0) == TARIFF.at(time_s)


def test_a_schedule_reads_as_a_tariff() -> None:
    assert str(TARIFF) == "0.3 from 06:00, 0.5 from 17:00, 0.1 from 22:00"


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text(
        "\ufefftime,price_per_kwh\r\n06:00,0.3\r\n\r\n17:00, 0.5\r\n22:00,.1\r\n", encoding="utf-8"
    )
    assert load_price_schedule(file) == TARIFF


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the columns are ''; expected 'time,price_per_kwh'"),
        ("price_per_kwh,time\n", "the columns are 'price_per_kwh,time'"),
        ("time,price_per_kwh\n", "at least one step"),
        ("time,price_per_kwh\n6:00,0.3\n", "line 2: time = '6:00' is not allowed; expected HH:MM"),
        ("time,price_per_kwh\n24:00,0.3\n", "line 2: time = '24:00'"),
        ("time,price_per_kwh\n06:00\n", "line 2: price_per_kwh = ''"),
        ("time,price_per_kwh\n06:00,0.3,9\n", "line 2: too many columns"),
        ("time,price_per_kwh\n06:00,0.3\n07:00,dear\n", "line 3: price_per_kwh = 'dear'"),
        ("time,price_per_kwh\n06:00,-0.3\n", "line 2: price_per_kwh = '-0.3' .*0 or more"),
        ("time,price_per_kwh\n06:00,nan\n", "line 2: price_per_kwh = 'nan'"),
        ("time,price_per_kwh\n06:00,inf\n", "line 2: price_per_kwh = 'inf'"),
        ("time,price_per_kwh\n06:00,0.3\n05:00,0.1\n", "must ascend"),
        ("time,price_per_kwh\n06:00,0.3\n06:00,0.1\n", "must ascend"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_allowed(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "day.csv"
    file.write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_price_schedule(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_bytes(b"time,price_per_kwh\n\xff\xfe\x00,1\n")
    with pytest.raises(SettingsError, match="not a CSV file"):
        load_price_schedule(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_price_schedule(tmp_path)


@pytest.mark.parametrize(
    ("start_s", "price"), [(86400.0, 0.1), (-1.0, 0.1), (0.0, -0.1), (0.0, float("nan"))]
)
def test_steps_made_in_code_are_checked_too(start_s: float, price: float) -> None:
    with pytest.raises(ValueError, match=r"allowed|within a day"):
        PriceStep(start_s, price)
