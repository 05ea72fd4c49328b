"""What is true of simulated cards, as the control sees it without NVML."""

from __future__ import annotations

from dataclasses import dataclass

from bench.standin import layout


@dataclass(frozen=True, slots=True)
class CardTruth:
    """What is true of a card at one moment. Everything is simulated.

    `locked_sm_mhz` and `locked_memory_mhz` are (least, highest), `application_clocks_mhz` is (memory, SM);
    None: not set. `sm_clock_mhz` is the clock in force. `energy_j` counts from the making of the rack.
    """

    locked_sm_mhz: tuple[int, int] | None
    locked_memory_mhz: tuple[int, int] | None
    application_clocks_mhz: tuple[int, int] | None
    power_limit_w: float
    default_power_limit_w: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    idle: bool
    utilisation: float
    power_w: float
    energy_j: float
    temperature_c: float
    event_reasons: int
    mig: bool
    lost: bool

    @property
    def is_default(self) -> bool:
        """Whether nobody has changed anything, or all of it was given back."""
        asked = (self.locked_sm_mhz, self.locked_memory_mhz, self.application_clocks_mhz)
        return asked == (None, None, None) and self.power_limit_w == self.default_power_limit_w


@dataclass(frozen=True, slots=True)
class SetCall:
    """One call of a setter: when (CLOCK_MONOTONIC), by whom, with what, and the code that it returned."""

    at_s: float
    pid: int
    uid: int
    function: str
    card: int
    arguments: tuple[int, int]
    code: int


def read_truth(shared: layout.Card, state: layout.State) -> CardTruth:
    """Copy what the shared state says of a card; the rack is locked."""
    asked = shared.settings
    return CardTruth(
        locked_sm_mhz=_pair(asked.locked_sm),
        locked_memory_mhz=_pair(asked.locked_memory),
        application_clocks_mhz=_pair(asked.app),
        power_limit_w=asked.limit_mw / 1000,
        default_power_limit_w=shared.make.default_limit_mw / 1000,
        sm_clock_mhz=state.sm_mhz,
        memory_clock_mhz=state.memory_mhz,
        idle=bool(state.idle),
        utilisation=state.utilisation,
        power_w=state.power_w,
        energy_j=shared.motion.energy_j,
        temperature_c=shared.motion.temperature_c,
        event_reasons=state.reasons,
        mig=bool(shared.script.mig),
        lost=bool(shared.script.lost),
    )


def _pair(span: layout.Span) -> tuple[int, int] | None:
    return (span.low, span.high) if span.high else None
