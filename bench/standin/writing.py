"""Writes a card into the shared state."""

from __future__ import annotations

from bench.standin import layout
from bench.standin.cards import CardSpec

_ARCHITECTURES = {
    "pascal": (4, (6, 0)),
    "volta": (5, (7, 0)),
    "turing": (6, (7, 5)),
    "ampere": (7, (8, 0)),
    "hopper": (9, (9, 0)),
}


def write_card(spec: CardSpec, index: int, make: layout.Make) -> None:
    """Write a card into the shared state.

    Raises:
        ValueError: the spec does not fit.
    """
    _check(spec)
    _write_identity(spec, index, make)
    _write_clocks(spec, make)
    _write_power(spec, make)
    _write_times(spec, make)


def _check(spec: CardSpec) -> None:
    for name, clocks, most in (
        ("SM clocks", spec.sm_clocks_mhz, layout.MAX_CLOCKS),
        ("memory clocks", spec.memory_clocks_mhz, layout.MAX_MEMORY_CLOCKS),
    ):
        if not 1 <= len(clocks) <= most or list(clocks) != sorted(set(clocks)):
            raise ValueError(f"{spec.uuid}: {name} must be 1 to {most} ascending clocks, got {clocks}")
    if spec.kind not in _ARCHITECTURES:
        raise ValueError(f"{spec.uuid}: no kind {spec.kind!r}; there are {', '.join(_ARCHITECTURES)}")


def _write_identity(spec: CardSpec, index: int, make: layout.Make) -> None:
    make.uuid = spec.uuid.encode()
    make.name = spec.name.encode()
    make.bus_id = f"00000000:{index + 1:02X}:00.0".encode()
    make.architecture, (make.compute_major, make.compute_minor) = _ARCHITECTURES[spec.kind]
    make.abilities = _abilities(spec)
    make.privileged_uid = spec.privileged_uid


def _abilities(spec: CardSpec) -> int:
    bits = {
        layout.CAN_LOCK_SM: spec.locked_clocks,
        layout.CAN_LOCK_MEMORY: spec.memory_locked_clocks,
        layout.CAN_SET_APPLICATION_CLOCKS: spec.application_clocks,
        layout.CAN_LIMIT_POWER: spec.power_limit_settable,
        layout.HAS_ENERGY_COUNTER: spec.energy_counter,
        layout.HAS_POWER_AVERAGE: spec.power_average,
        layout.HAS_POWER_INSTANT: spec.power_instant,
        layout.HAS_MIG: spec.mig,
        layout.ANYBODY_SETS_APPLICATION_CLOCKS: spec.open_application_clocks,
        layout.IDLES_BELOW_LOCK: spec.idles_below_lock,
    }
    return sum(bit for bit, has in bits.items() if has)


def _write_clocks(spec: CardSpec, make: layout.Make) -> None:
    highest = spec.sm_clocks_mhz[-1]
    make.sm_count = len(spec.sm_clocks_mhz)
    make.sm_mhz[: make.sm_count] = list(spec.sm_clocks_mhz)
    make.memory_count = len(spec.memory_clocks_mhz)
    for place, clock in enumerate(spec.memory_clocks_mhz):
        make.memory_mhz[place] = clock
        make.sm_limit_mhz[place] = spec.sm_limit_mhz.get(clock, highest)
    make.idle_sm_mhz = spec.idle_sm_mhz
    make.slowdown_mhz = spec.slowdown_mhz or highest // 2
    make.default_app_memory_mhz = spec.default_app_memory_mhz or spec.memory_clocks_mhz[-1]
    make.default_app_sm_mhz = spec.default_app_sm_mhz or highest


def _write_power(spec: CardSpec, make: layout.Make) -> None:
    default_w, least_w, largest_w = spec.power_limit_w
    make.default_limit_mw = round(default_w * 1000)
    make.least_limit_mw = round(least_w * 1000)
    make.largest_limit_mw = round(largest_w * 1000)
    make.idle_w, make.standing_w, make.active_w = spec.idle_w, spec.standing_w, spec.active_w
    make.knee, make.floor_voltage, make.memory_share = spec.knee, spec.floor_voltage, spec.memory_share
    make.ambient_c, make.slowdown_c = spec.ambient_c, spec.slowdown_c
    make.c_per_w, make.thermal_s = spec.thermal_resistance_c_per_w, spec.thermal_time_s


def _write_times(spec: CardSpec, make: layout.Make) -> None:
    make.settle_ns = _ns(spec.settle_s)
    make.idle_after_ns = _ns(spec.idle_after_s)
    make.counter_period_ns = _ns(spec.counter_period_s)
    make.setter_ns = _ns(spec.setter_s)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
