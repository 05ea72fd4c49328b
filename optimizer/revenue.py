"""What the operator wants, and what an interval earned by it.

The form `profit`, in currency over an interval:

    price_per_1000_images / 1000 * images in time
    - late_penalty_per_1000_images / 1000 * images late
    - kWh * (energy_price_per_kwh + grid_g_per_kwh / 1000 * carbon_price_per_kg)

Late is whatever was answered after the SLO, refused or expired. What a client withdrew, and what an engine
failed on, earns nothing and costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from optimizer.settings_table import SettingsError, SettingsTable
from optimizer.telemetry import Traffic, Window

FORMS = ("profit",)
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Targets:
    """The operator's wishes. Prices are in any one currency; the defaults are round figures, not quotations.

    Raises ValueError for a negative value, an SLO or cap of 0, or an unknown form.
    """

    slo_p99_ms: float = 100.0
    price_per_1000_images: float = 0.001
    late_penalty_per_1000_images: float = 0.001
    energy_price_per_kwh: float = 0.25
    carbon_price_per_kg: float = 0.08
    grid_g_per_kwh: float = 300.0
    power_cap_w: float | None = None
    form: str = "profit"

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if name == "power_cap_w" and value is None:
                continue
            if not 0.0 <= value < math.inf or (value == 0 and name in _NOT_ZERO):
                allowed = "greater than 0" if name in _NOT_ZERO else "0 or more"
                raise ValueError(f"{name} = {value:g} is not allowed; expected a number, {allowed}")
        if self.form not in FORMS:
            raise ValueError(f"form = {self.form!r} is not allowed; expected one of {', '.join(FORMS)}")

    @property
    def price_per_joule(self) -> float:
        """Price of energy, its carbon included."""
        per_kwh = self.energy_price_per_kwh + self.grid_g_per_kwh / 1000.0 * self.carbon_price_per_kg
        return per_kwh / JOULES_PER_KWH


_NUMBERS = tuple(field.name for field in fields(Targets) if field.name != "form")
_NOT_ZERO = ("slo_p99_ms", "power_cap_w")


@dataclass(frozen=True, slots=True)
class Revenue:
    """Currency earned over an interval. `energy_cost` is None, and missing in `total`, when not measured."""

    income: float
    penalty: float
    energy_cost: float | None

    @property
    def excludes_energy(self) -> bool:
        """Whether the total says nothing about energy, because nothing measured it."""
        return self.energy_cost is None

    @property
    def total(self) -> float:
        """Income less penalty and, where measured, the cost of energy."""
        return self.income - self.penalty - (self.energy_cost or 0.0)


def profit(targets: Targets, in_time: float, late: float, joules: float | None) -> Revenue:
    """Score images in time, images late and the energy used: as counted, or as predicted for a second."""
    return Revenue(
        income=targets.price_per_1000_images / 1000.0 * in_time,
        penalty=targets.late_penalty_per_1000_images / 1000.0 * late,
        energy_cost=None if joules is None else targets.price_per_joule * joules,
    )


def late_images(traffic: Traffic) -> int:
    """Images that count as late: answered after the SLO, refused, or expired while queued."""
    return traffic.late + traffic.refused + traffic.expired


def window_revenue(targets: Targets, window: Window) -> Revenue:
    """Score what one window measured. Energy counts as the device reported it, idle included."""
    traffic = window.traffic
    in_time = max(0, traffic.completed - traffic.late)
    return profit(targets, in_time, late_images(traffic), window.device.energy.joules)


def load_targets(path: Path) -> Targets:
    """Read targets from a TOML file whose keys are the fields of `Targets`; what it omits keeps its default.

    Raises:
        SettingsError: the file is unreadable, or a key is unknown or has a value that is not allowed.
    """
    table = SettingsTable.load(path)
    given: dict[str, Any] = {name: _price(table, name) for name in _NUMBERS if name in table}
    if "form" in table:
        given["form"] = table.text("form")
    table.finish()
    try:
        return Targets(**given)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _price(table: SettingsTable, name: str) -> float:
    if name == "energy_price_per_kwh" and isinstance(table.take(name), str):
        table.refuse(name, "a number (prices by time of day from a CSV file are not supported yet)")
    return table.number(name)
