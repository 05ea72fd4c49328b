"""Reading GPU profiles from TOML. Every profile states where its figures come from.

A profile may leave out: `boost_clock_mhz` (the highest clock), `clock_switch_s`, `power_sensor` and
`energy_counter_period_s` (what most cards have: see the defaults below), `power_cap_settle_s` (at once),
`noise` (none), and `chip` where every model is a measured surface.
"""

from __future__ import annotations

from pathlib import Path

from optimizer.settings_table import SettingsError, SettingsTable
from optimizer.twin.gpu_profile import GpuProfile, Noise, PowerSensor
from optimizer.twin.physics import BatchPhysics, Chip, ParametricPhysics
from optimizer.twin.surface import SurfacePhysics, load_surface

__all__ = ["GpuProfile", "load_profile", "shipped_profiles"]

# Ranges and periods seen on NVIDIA cards from the A100 on (Yang, Adamek, Armour, SC24; the NVML reference).
CLOCK_SWITCH_S = (0.02, 0.25)
POWER_SENSOR = PowerSensor(period_s=0.1, window_s=0.025)
ENERGY_COUNTER_PERIOD_S = 0.1

MOST_CLOCKS = 2000
"""No card is known to have 200; every decision scores them all."""

SHIPPED = Path(__file__).parent / "profiles"


def shipped_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_profile(name_or_path: str | Path) -> GpuProfile:
    """Read a profile: a shipped one by its name, any other by its path.

    Raises:
        SettingsError: no such profile, or it says something that is not allowed; names file and key.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return _profile(SettingsTable.load(path), path.parent)
    if str(name_or_path) not in shipped_profiles():
        known = ", ".join(shipped_profiles())
        raise SettingsError(f"no GPU profile {str(name_or_path)!r}; give a .toml file or one of {known}")
    return _profile(SettingsTable.load(SHIPPED / f"{name_or_path}.toml"), SHIPPED)


def _profile(table: SettingsTable, folder: Path) -> GpuProfile:
    clocks = _clocks(table)
    boost_clock_mhz = int(_optional(table, "boost_clock_mhz", clocks[-1]))
    if boost_clock_mhz not in clocks:
        table.refuse("boost_clock_mhz", "one of sm_clocks_mhz")
    chip = _chip(table.table("chip"), boost_clock_mhz) if "chip" in table else None
    profile = GpuProfile(
        name=table.text("name"),
        source=table.text("source"),
        sm_clocks_mhz=clocks,
        boost_clock_mhz=boost_clock_mhz,
        power_limit_w=table.number("power_limit_w", above=0.0),
        idle_power_w=table.number("idle_power_w"),
        clock_switch_s=_range(table, "clock_switch_s") if "clock_switch_s" in table else CLOCK_SWITCH_S,
        power_sensor=_power_sensor(table.table("power_sensor")) if "power_sensor" in table else POWER_SENSOR,
        energy_counter_period_s=_optional(table, "energy_counter_period_s", ENERGY_COUNTER_PERIOD_S),
        noise=_noise(table.table("noise")) if "noise" in table else Noise(),
        models=_models(table, folder, chip, clocks),
        power_cap_settle_s=_optional(table, "power_cap_settle_s", 0.0),
    )
    table.finish()
    return profile


def _optional(table: SettingsTable, key: str, default: float) -> float:
    return table.number(key) if key in table else default


def _clocks(table: SettingsTable) -> tuple[int, ...]:
    if isinstance(table.take("sm_clocks_mhz"), dict):
        steps = table.table("sm_clocks_mhz")
        first, last = steps.number("first", above=0.0), steps.number("last", above=0.0)
        step = steps.number("step", above=0.0)
        if step < 1.0:
            steps.refuse("step", "at least 1 MHz: clocks are whole and each comes once")
        _finish(steps)
        if first > last:
            table.refuse("sm_clocks_mhz", "first no greater than last")
        if (last - first) / step >= MOST_CLOCKS:
            table.refuse("sm_clocks_mhz", f"at most {MOST_CLOCKS} clocks")
        return tuple(int(first + step * index) for index in range(int((last - first) / step + 1e-9) + 1))
    clocks = tuple(int(clock) for clock in table.numbers("sm_clocks_mhz"))
    if sorted(set(clocks)) != list(clocks) or clocks[0] <= 0:
        table.refuse("sm_clocks_mhz", "ascending clocks in MHz, or {first, last, step}")
    return clocks


def _range(table: SettingsTable, key: str) -> tuple[float, float]:
    low, high = table.numbers(key, count=2)
    if low > high:
        table.refuse(key, "[low, high] with low no greater than high")
    return low, high


def _power_sensor(table: SettingsTable) -> PowerSensor:
    sensor = PowerSensor(table.number("period_s", above=0.0), table.number("window_s", above=0.0))
    _finish(table)
    return sensor


def _noise(table: SettingsTable) -> Noise:
    noise = Noise(_optional(table, "latency_cv", 0.0), _optional(table, "power_cv", 0.0))
    _finish(table)
    return noise


def _chip(table: SettingsTable, boost_clock_mhz: int) -> Chip:
    chip = Chip(
        boost_clock_mhz=boost_clock_mhz,
        knee_clock_mhz=table.number("knee_clock_mhz"),
        floor_voltage=table.number("floor_voltage"),
        constant_w=table.number("constant_w"),
        leakage_w=table.number("leakage_w"),
        clock_tree_w=table.number("clock_tree_w"),
    )
    if chip.knee_clock_mhz >= boost_clock_mhz:
        table.refuse("knee_clock_mhz", f"a clock below the boost clock {boost_clock_mhz}")
    if chip.floor_voltage > 1.0:
        table.refuse("floor_voltage", "a share from 0 to 1 of the voltage at the boost clock")
    _finish(table)
    return chip


def _models(
    table: SettingsTable, folder: Path, chip: Chip | None, clocks: tuple[int, ...]
) -> dict[str, BatchPhysics]:
    models = table.table("models")
    if not list(models):
        table.refuse("models", "at least one table [models.NAME]")
    return {name: _model(models.table(name), folder, chip, clocks) for name in models}


def _model(table: SettingsTable, folder: Path, chip: Chip | None, clocks: tuple[int, ...]) -> BatchPhysics:
    physics = _surface(table, folder, clocks) if "surface" in table else _parametric(table, chip)
    _finish(table)
    return physics


def _surface(table: SettingsTable, folder: Path, clocks: tuple[int, ...]) -> SurfacePhysics:
    surface = load_surface(folder / table.text("surface"))
    low_mhz, high_mhz = surface.clock_range_mhz
    if clocks[0] > high_mhz or clocks[-1] < low_mhz:
        legal = f"{clocks[0]}..{clocks[-1]} MHz"
        table.refuse("surface", f"points at clocks in {legal}, but it covers {low_mhz:g}..{high_mhz:g}")
    return surface


def _parametric(table: SettingsTable, chip: Chip | None) -> ParametricPhysics:
    if chip is None:
        raise SettingsError(f"{table.where}: parametric physics needs a [chip] table; or give a surface")
    physics = ParametricPhysics(
        chip=chip,
        launch_ms=table.number("launch_ms"),
        memory_ms=table.number("memory_ms"),
        memory_ms_per_image=table.number("memory_ms_per_image"),
        compute_ms=table.number("compute_ms"),
        compute_ms_per_image=table.number("compute_ms_per_image", above=0.0),
        activity_w=table.number("activity_w"),
        activity_exponent=table.number("activity_exponent"),
        memory_activity_share=table.number("memory_activity_share"),
        roofline_sharpness=_optional(table, "roofline_sharpness", 1.0),
    )
    if physics.roofline_sharpness < 1.0:
        table.refuse("roofline_sharpness", "a number, 1 or more")
    if physics.memory_activity_share > 1.0:
        table.refuse("memory_activity_share", "a share from 0 to 1")
    return physics


def _finish(table: SettingsTable) -> None:
    """Refuse unknown keys; any table may state its source."""
    if "source" in table:
        table.text("source")
    table.finish()
