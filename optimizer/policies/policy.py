"""The seam to whatever decides: a window and the targets go in, a decision comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Targets
from optimizer.surge import Tripwire
from optimizer.telemetry import Window


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected at a setting on the present load: currency per second, latency, mean power.

    Under any other form than `profit` its score stands for currency, here and in `Decision`. `power_w` is
    None when energy is not measured.
    """

    point: OperatingPoint
    revenue_per_s: float
    p99_ms: float
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """When not to wait for the next decision, where to go then at once, and what to watch for there."""

    wire: Tripwire
    refuge: OperatingPoint
    then: Alarm | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The setting to use from now on, and why.

    Args:
        point: the setting; always on the grid.
        reason: one line that a person can read.
        predicted_revenue_per_s: currency per second expected at `point`, on the current load; None when
            nothing was predicted. Without energy in it when energy is not measured.
        predicted_p99_ms: latency expected at `point`.
        predicted_power_w: mean power expected at `point`; None when energy is not measured.
        runner_up: the best other setting, with the revenue expected there.
        runner_up_revenue_per_s: currency per second expected at `runner_up`.
        alarm: what to do before the next decision if work piles up; None: nothing.
        alternatives: what was expected of the best other settings, best first.
        infeasible: why the targets cannot be kept, and the best that can be done; None when they can.
        learned: what was learned since the last decision, in one line.
    """

    point: OperatingPoint
    reason: str
    predicted_revenue_per_s: float | None = None
    predicted_p99_ms: float | None = None
    predicted_power_w: float | None = None
    runner_up: OperatingPoint | None = None
    runner_up_revenue_per_s: float | None = None
    alarm: Alarm | None = None
    alternatives: tuple[Prediction, ...] = ()
    infeasible: str | None = None
    learned: str = ""


class Policy(Protocol):
    """Chooses settings. Pure but for what it has learned: no clock, thread, device or I/O.

    A window whose `point` has no SM clock was measured while the clock could not be set; decisions on it then
    change the batch limit only, and have no clock either.
    """

    @property
    def name(self) -> str:
        """What it is called, for logs and metrics."""

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Learn from a window and choose the setting for the next."""


@runtime_checkable
class Learner(Protocol):
    """A policy whose knowledge outlives it: saved for each device, model and precision."""

    def export_state(self) -> Mapping[str, object]:
        """Return what was learned, in values that JSON can hold."""

    def import_state(self, state: Mapping[str, object]) -> None:
        """Start from what `export_state` returned. Raises ValueError, changing nothing, for anything else."""

    def forget(self) -> None:
        """Start anew, as if nothing had been learned."""
