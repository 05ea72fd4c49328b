"""What the operator wants: a latency to hold, prices, a power cap, and the form that weighs them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from optimizer.energy_price import PriceSchedule, load_price_schedule
from optimizer.settings_table import SettingsError, SettingsTable

FORMS = ("profit", "energy", "edp", "ed2p", "zeus")
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Targets:
    """The operator's wishes. Prices are in any one currency; the defaults are round figures, not quotations.

    Args:
        slo_p99_ms: an image answered later than this is late.
        price_per_1000_images: earned by images in time.
        late_penalty_per_1000_images: paid for images late.
        energy_price_per_kwh: one price, or prices by time of day.
        carbon_price_per_kg: paid for the carbon of the energy used.
        grid_g_per_kwh: carbon intensity of the grid.
        power_cap_w: a hard limit, not a price: no policy chooses a setting whose mean power it expects above
            it, whatever that would earn; and where it can be had, none whose running batches draw more, so
            that a surge does not exceed it either. None: no limit.
        form: what is maximised, one of `FORMS`; see `optimizer.revenue`.
        zeus_eta: weight of energy against time in the form `zeus`, from 0 to 1.
        zeus_max_power_w: what a second weighs in joules in the form `zeus`: the device's power limit.

    Raises ValueError for a negative value, an SLO or cap of 0, or an unknown form.
    """

    slo_p99_ms: float = 100.0
    price_per_1000_images: float = 0.001
    late_penalty_per_1000_images: float = 0.001
    energy_price_per_kwh: float | PriceSchedule = 0.25
    carbon_price_per_kg: float = 0.08
    grid_g_per_kwh: float = 300.0
    power_cap_w: float | None = None
    form: str = "profit"
    zeus_eta: float = 0.5
    zeus_max_power_w: float = 300.0

    def __post_init__(self) -> None:
        for name in NUMBERS:
            _check(name, getattr(self, name))
        if self.form not in FORMS:
            raise ValueError(f"form = {self.form!r} is not allowed; expected one of {', '.join(FORMS)}")

    def at(self, time_of_day_s: float) -> Targets:
        """Return the targets with the one energy price that holds so many seconds after midnight."""
        price = self.energy_price_per_kwh
        if not isinstance(price, PriceSchedule):
            return self
        return replace(self, energy_price_per_kwh=price.at(time_of_day_s))

    @property
    def price_per_joule(self) -> float:
        """Price of energy, its carbon included. Raises ValueError while it depends on the time of day."""
        price = self.energy_price_per_kwh
        if isinstance(price, PriceSchedule):
            raise ValueError("the energy price depends on the time of day; choose one with Targets.at()")
        return (price + self.grid_g_per_kwh / 1000.0 * self.carbon_price_per_kg) / JOULES_PER_KWH


NUMBERS = tuple(field.name for field in fields(Targets) if field.name != "form")
"""The names of all targets that are numbers."""
_NOT_ZERO = ("slo_p99_ms", "power_cap_w", "zeus_max_power_w")
_SHARES = ("zeus_eta",)


def _check(name: str, value: float | PriceSchedule | None) -> None:
    if isinstance(value, PriceSchedule) or (name == "power_cap_w" and value is None):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} = {value!r} is not allowed; expected {_allowed(name)}")
    too_much = math.nextafter(1.0, 2.0) if name in _SHARES else math.inf
    if not 0.0 <= value < too_much or (value == 0 and name in _NOT_ZERO):
        raise ValueError(f"{name} = {value:g} is not allowed; expected {_allowed(name)}")


def _allowed(name: str) -> str:
    if name in _SHARES:
        return "a number from 0 to 1"
    return "a number, greater than 0" if name in _NOT_ZERO else "a number, 0 or more"


def load_targets(path: Path) -> Targets:
    """Read targets from a TOML file whose keys are the fields of `Targets`; what it omits keeps its default.

    A text as `energy_price_per_kwh` names a CSV file, see `load_price_schedule`; its path is relative to the
    TOML file.

    Raises:
        SettingsError: a file is unreadable, or a key is unknown or has a value that is not allowed.
    """
    table = SettingsTable.load(path)
    given: dict[str, Any] = {name: _number(table, name, path.parent) for name in NUMBERS if name in table}
    if "form" in table:
        given["form"] = table.text("form")
    table.finish()
    try:
        return Targets(**given)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _number(table: SettingsTable, name: str, folder: Path) -> float | PriceSchedule:
    if name != "energy_price_per_kwh" or not isinstance(table.take(name), str):
        return table.number(name)
    try:
        return load_price_schedule(folder / table.text(name))
    except SettingsError as error:
        raise SettingsError(f"{table.where}: {name}: {error}") from error
