"""Times in which a card holds its clock down for a reason of its own, as one does that grows too hot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optimizer.telemetry import EventReason

SLOWDOWNS = (
    EventReason.HW_SLOWDOWN
    | EventReason.SW_THERMAL_SLOWDOWN
    | EventReason.HW_THERMAL_SLOWDOWN
    | EventReason.HW_POWER_BRAKE
)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """The card runs no faster than a clock from one time up to another, in seconds.

    Raises ValueError for an empty time, and for a reason that is no slowdown.
    """

    clock_mhz: int
    start_s: float
    end_s: float
    reason: EventReason = EventReason.SW_THERMAL_SLOWDOWN

    def __post_init__(self) -> None:
        if not self.start_s < self.end_s or self.reason not in SLOWDOWNS or not self.reason:
            raise ValueError(
                f"a slowdown needs start < end and a reason of {SLOWDOWNS!r}; got {self.reason!r} "
                f"from {self.start_s:g} to {self.end_s:g} s"
            )


def held_mhz(slowdowns: Iterable[Slowdown], asked_mhz: int, now_s: float) -> int:
    """Return the clock in force where one was asked for."""
    return min([asked_mhz, *(s.clock_mhz for s in slowdowns if s.start_s <= now_s < s.end_s)])


def edges_s(slowdowns: Iterable[Slowdown]) -> Sequence[float]:
    """Return the times at which the clock in force may change, ascending."""
    return sorted({edge_s for s in slowdowns for edge_s in (s.start_s, s.end_s)})
