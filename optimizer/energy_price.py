"""What a kilowatt-hour costs by time of day, as tariffs and day-ahead markets quote it."""

from __future__ import annotations

import csv
import itertools
import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from optimizer.settings_table import SettingsError

COLUMNS = ("time", "price_per_kwh")
DAY_S = 86400.0
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class PriceStep:
    """A price that holds from `start_s` seconds after midnight until the next step."""

    start_s: float
    price_per_kwh: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.start_s < DAY_S:
            raise ValueError(f"a price step must start within a day of {DAY_S:g} s, got {self.start_s:g} s")
        if not 0.0 <= self.price_per_kwh < math.inf:
            raise ValueError(f"price_per_kwh = {self.price_per_kwh:g} is not allowed; expected 0 or more")

    def __str__(self) -> str:
        hours, minutes = divmod(int(self.start_s) // 60, 60)
        return f"{self.price_per_kwh:g} from {hours:02d}:{minutes:02d}"


@dataclass(frozen=True, slots=True)
class PriceSchedule:
    """Prices that repeat every day, in steps. The last step holds past midnight, until the first begins.

    Raises ValueError without a step, or when the steps do not ascend.
    """

    steps: tuple[PriceStep, ...]

    def __post_init__(self) -> None:
        starts = [step.start_s for step in self.steps]
        if not starts:
            raise ValueError("a price schedule needs at least one step")
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise ValueError("the times of a price schedule must ascend, each at most once")

    def at(self, time_of_day_s: float) -> float:
        """Return the price per kWh at a time in seconds since midnight; whole days are taken off."""
        starts = [step.start_s for step in self.steps]
        return self.steps[bisect_right(starts, time_of_day_s % DAY_S) - 1].price_per_kwh

    def __str__(self) -> str:
        return ", ".join(str(step) for step in self.steps)


def load_price_schedule(path: Path) -> PriceSchedule:
    """Read a CSV file with the columns `time,price_per_kwh`; a row is like `06:30,0.31`, in any currency.

    Raises:
        SettingsError: the file is unreadable, or a row is malformed, negative or out of order.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restkey="", restval="")
            _check_columns(path, rows.fieldnames)
            steps = tuple(_step(f"{path}, line {rows.line_num}", row) for row in rows)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a CSV file: {error}") from error
    try:
        return PriceSchedule(steps)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _check_columns(path: Path, names: object) -> None:
    found = [str(name).strip() for name in names] if isinstance(names, list) else []
    if found != list(COLUMNS):
        raise SettingsError(f"{path}: the columns are {','.join(found)!r}; expected {','.join(COLUMNS)!r}")


def _step(where: str, row: dict[str, str]) -> PriceStep:
    if "" in row:
        raise SettingsError(f"{where}: too many columns; expected a row like 06:30,0.31")
    time, price = (value.strip() for value in row.values())
    match = _TIME.fullmatch(time)
    if match is None:
        raise SettingsError(f"{where}: time = {time!r} is not allowed; expected HH:MM, from 00:00 to 23:59")
    return PriceStep(int(match[1]) * 3600.0 + int(match[2]) * 60.0, _price(where, price))


def _price(where: str, text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0.0 <= price < math.inf:
        raise SettingsError(f"{where}: price_per_kwh = {text!r} is not allowed; expected a number, 0 or more")
    return price
