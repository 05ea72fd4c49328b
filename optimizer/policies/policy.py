"""The seam to whatever decides: a window and the targets go in, a decision comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Targets
from optimizer.telemetry import Window


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
    """

    point: OperatingPoint
    reason: str
    predicted_revenue_per_s: float | None = None
    predicted_p99_ms: float | None = None
    predicted_power_w: float | None = None
    runner_up: OperatingPoint | None = None
    runner_up_revenue_per_s: float | None = None


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
