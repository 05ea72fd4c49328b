"""One setting, found before serving and kept: measured as any policy is, but nothing is decided."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets
from optimizer.telemetry import Window


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """Implements `Policy` by one setting, whatever is measured.

    Args:
        name: what the policy is called.
        point: the setting.
        reason: why it was chosen.
    """

    name: str
    point: OperatingPoint
    reason: str

    def decide(self, window: Window, targets: Targets) -> Decision:  # noqa: ARG002  # nothing can change its mind
        """Return the setting, without a clock while none can be set."""
        point = replace(self.point, sm_clock_mhz=None) if window.point.sm_clock_mhz is None else self.point
        return Decision(point, f"{point}: {self.reason}")


def fixed(grid: OperatingGrid) -> FixedPolicy:
    """Return the policy that keeps the grid's default; without clocks, the device manages its own."""
    return FixedPolicy("fixed", grid.default, "fixed")
