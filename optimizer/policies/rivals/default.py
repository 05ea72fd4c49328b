"""The server without a governor: dynamic batching up to the largest batch, no added delay, boost clock."""

from __future__ import annotations

from optimizer.operating_point import OperatingGrid
from optimizer.policies.rivals.kept import KeptPolicy


def default(grid: OperatingGrid) -> KeptPolicy:
    """Return the policy that keeps the grid's default."""
    return KeptPolicy("default", grid.default, "the default")
