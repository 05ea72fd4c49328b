"""The cards that can be put into a rack.

Clock grids, idle power and power limits are those of the real cards where public listings show them (V100,
A100, H100). Those of the P100 and the T4, default application clocks, and the split of power at work are
assumed on every card. All of it is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class CardSpec:
    """One simulated card.

    Args:
        uuid: as NVML tells it, `GPU-` and a UUID.
        name: the product name; says that it is a stand-in.
        kind: the architecture: pascal, volta, turing, ampere or hopper.
        sm_clocks_mhz: legal SM clocks, ascending, at most 256.
        memory_clocks_mhz: legal memory clocks, ascending, at most 8.
        idle_sm_mhz: the SM clock of an idle card that nobody has locked.
        power_limit_w: default, least and largest power limit.
        idle_w: the power of an idle card.
        standing_w: what a woken card draws on top, at full voltage, doing nothing.
        active_w: what full utilisation draws on top of both, at the highest clocks.
        sm_limit_mhz: the highest SM clock with a memory clock, where it is not the highest of all.
        default_app_sm_mhz: the default SM application clock; None: the highest.
        default_app_memory_mhz: the default memory application clock; None: the highest.
        slowdown_mhz: the SM clock under a slowdown; None: half the highest.
        knee: the share of the highest clock up to which the voltage lies at its floor.
        floor_voltage: the voltage there, over the highest; it rises evenly from the knee on.
        memory_share: the share of active power that goes with the memory clock.
        thermal_resistance_c_per_w: how much warmer than ambient a watt makes the card in the end.
        thermal_time_s: the time constant of getting there.
        ambient_c: the temperature of the air.
        slowdown_c: the temperature from which the card slows itself down.
        settle_s: how long after a setter's return the clock is in force.
        idle_after_s: how long after its last work the card falls idle.
        setter_s: how long a setter takes before its effect.
        counter_period_s: how often the energy counter moves.
        privileged_uid: the user who may set; 0 on a real machine.
        locked_clocks: whether SM clocks can be locked.
        memory_locked_clocks: whether memory clocks can be locked.
        application_clocks: whether the card has application clocks.
        energy_counter: whether it counts its energy.
        power_average: whether it has field 185.
        power_instant: whether it has field 186.
        mig: whether it knows MIG mode.
        power_limit_settable: whether it has a power limit.
        open_application_clocks: whether anybody may set application clocks.
        idles_below_lock: whether an idle card goes below the clock that it is locked to.
    """

    uuid: str
    name: str
    kind: str
    sm_clocks_mhz: tuple[int, ...]
    memory_clocks_mhz: tuple[int, ...]
    idle_sm_mhz: int
    power_limit_w: tuple[float, float, float]
    idle_w: float
    standing_w: float
    active_w: float
    sm_limit_mhz: Mapping[int, int] = field(default_factory=dict)
    default_app_sm_mhz: int | None = None
    default_app_memory_mhz: int | None = None
    slowdown_mhz: int | None = None
    knee: float = 0.64
    floor_voltage: float = 0.81
    memory_share: float = 0.3
    thermal_resistance_c_per_w: float = 0.16
    thermal_time_s: float = 10.0
    ambient_c: float = 28.0
    slowdown_c: float = 90.0
    settle_s: float = 0.05
    idle_after_s: float = 0.2
    setter_s: float = 0.0
    counter_period_s: float = 0.02
    privileged_uid: int = 0
    locked_clocks: bool = True
    memory_locked_clocks: bool = True
    application_clocks: bool = True
    energy_counter: bool = True
    power_average: bool = True
    power_instant: bool = True
    mig: bool = True
    power_limit_settable: bool = True
    open_application_clocks: bool = False
    idles_below_lock: bool = False


def make_card(kind: str = "ampere", number: int = 0, **changes: object) -> CardSpec:
    """Return the usual card of an architecture, with a UUID of its own for each number.

    Args:
        kind: pascal, volta, turing, ampere or hopper.
        number: 0 to 255.
        changes: fields of CardSpec to have otherwise.

    Raises:
        ValueError: no such kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"no card of kind {kind!r}; there are {', '.join(_KINDS)}")
    uuid = f"GPU-57a4d1{number:02x}-0000-4000-8000-{number:012x}"
    return replace(_KINDS[kind](uuid), **changes)  # type: ignore[arg-type]


def _pascal(uuid: str) -> CardSpec:
    """No locked clocks, no energy counter, no power fields: application clocks and a power reading only."""
    return CardSpec(
        uuid,
        "Stand-in P100-PCIE-16GB",
        "pascal",
        tuple(544 + 49 * step // 4 for step in range(65)),
        (715,),
        405,
        (250.0, 125.0, 250.0),
        26.0,
        30.0,
        180.0,
        default_app_sm_mhz=1189,
        locked_clocks=False,
        memory_locked_clocks=False,
        energy_counter=False,
        power_average=False,
        power_instant=False,
        mig=False,
    )


def _volta(uuid: str) -> CardSpec:
    return CardSpec(
        uuid,
        "Stand-in V100-PCIE-32GB",
        "volta",
        tuple(135 + 15 * step // 2 for step in range(167)),
        (877,),
        135,
        (250.0, 100.0, 250.0),
        23.0,
        30.0,
        190.0,
        default_app_sm_mhz=1230,
        memory_locked_clocks=False,
        power_average=False,
        power_instant=False,
        mig=False,
    )


def _turing(uuid: str) -> CardSpec:
    return CardSpec(
        uuid,
        "Stand-in T4",
        "turing",
        tuple(range(300, 1591, 15)),
        (405, 5001),
        300,
        (70.0, 60.0, 70.0),
        10.0,
        12.0,
        45.0,
        sm_limit_mhz={405: 645},
        default_app_sm_mhz=585,
        memory_locked_clocks=False,
        power_average=False,
        power_instant=False,
        mig=False,
    )


def _ampere(uuid: str) -> CardSpec:
    return CardSpec(
        uuid,
        "Stand-in A100-PCIE-40GB",
        "ampere",
        tuple(range(210, 1411, 15)),
        (1215,),
        210,
        (250.0, 150.0, 250.0),
        32.0,
        40.0,
        165.0,
    )


def _hopper(uuid: str) -> CardSpec:
    return CardSpec(
        uuid,
        "Stand-in H100 NVL",
        "hopper",
        tuple(range(345, 1786, 15)),
        (1593, 2619),
        345,
        (400.0, 200.0, 400.0),
        61.0,
        60.0,
        270.0,
    )


_KINDS: Mapping[str, Callable[[str], CardSpec]] = {
    "pascal": _pascal,
    "volta": _volta,
    "turing": _turing,
    "ampere": _ampere,
    "hopper": _hopper,
}
