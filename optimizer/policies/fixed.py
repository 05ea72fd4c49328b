"""Stays where it starts. What the others are compared with: the same measurements, no decision."""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets
from optimizer.telemetry import Window


class FixedPolicy:
    """Implements `Policy` by keeping the grid's default.

    Args:
        grid: the legal settings; without clocks, the device's own clock management stays in charge.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._point = grid.default

    @property
    def name(self) -> str:
        """Always `fixed`."""
        return "fixed"

    def decide(self, window: Window, targets: Targets) -> Decision:  # noqa: ARG002  # nothing can change its mind
        """Return the default setting, whatever was measured."""
        return Decision(self._point, f"{self._point}: fixed")
