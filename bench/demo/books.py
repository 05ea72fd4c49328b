"""What a run earned and used, added up over the governor's windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protos import boulton_pb2

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Books:
    """Totals from the first window with arrivals to the last.

    `joules` is None when any of the windows was not measured; `energy_cost` is 0 then. Money is in the
    operator's currency: `sales` are income less penalties.
    """

    seconds: float
    arrived: int
    in_time: int
    late: int
    sales: float
    joules: float | None
    energy_cost: float
    energy_source: str

    @classmethod
    def of(cls, decisions: Sequence[boulton_pb2.Decision]) -> Books:
        """Add up."""
        busy = loaded(decisions)
        windows = [decision.window for decision in busy]
        measured = bool(windows) and all(window.HasField("energy_j") for window in windows)
        return cls(
            seconds=sum(window.duration_s for window in windows),
            arrived=sum(window.arrived for window in windows),
            in_time=sum(max(0, window.completed - window.late) for window in windows),
            late=sum(window.late + window.refused + window.expired for window in windows),
            sales=sum(decision.revenue.income - decision.revenue.penalty for decision in busy),
            joules=sum(window.energy_j for window in windows) if measured else None,
            energy_cost=sum(decision.revenue.energy_cost for decision in busy) if measured else 0.0,
            energy_source=windows[-1].energy_source if windows else "",
        )

    @property
    def watts(self) -> float | None:
        """Mean power."""
        return None if self.joules is None else self.joules / self.seconds

    def revenue_per_hour(self, load_s: float) -> float:
        """Revenue as if the load had gone on for an hour.

        Sales belong to the load, which lasted `load_s`; energy to the windows, whose borders lie elsewhere.
        """
        return SECONDS_PER_HOUR * (self.sales / load_s - self.energy_cost / self.seconds)


def loaded(decisions: Sequence[boulton_pb2.Decision]) -> list[boulton_pb2.Decision]:
    """Leave out what came before the first arrival and after the last."""
    busy = [at for at, decision in enumerate(decisions) if decision.window.arrived]
    return list(decisions[busy[0] : busy[-1] + 1]) if busy else []


def batch_limits(decisions: Sequence[boulton_pb2.Decision]) -> list[int]:
    """Batch limits in force, in order, without repetitions."""
    return _course([decision.window.point.batch_limit for decision in decisions])


def clocks_mhz(decisions: Sequence[boulton_pb2.Decision]) -> list[int]:
    """SM clocks asked for, in order, without repetitions; empty when the clock is not governed."""
    points = [decision.window.point for decision in decisions]
    return _course([point.sm_clock_mhz for point in points if point.HasField("sm_clock_mhz")])


def _course(values: Sequence[int]) -> list[int]:
    return [value for at, value in enumerate(values) if at == 0 or value != values[at - 1]]
