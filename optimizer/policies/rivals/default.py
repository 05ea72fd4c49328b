"""The server without a governor: dynamic batching up to the largest batch, no added delay, boost clock."""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid
from optimizer.policies.fixed import FixedPolicy


def default(grid: OperatingGrid) -> FixedPolicy:
    """Return the policy that keeps the grid's default."""
    return FixedPolicy("default", grid.default, "the default")
