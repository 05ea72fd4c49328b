"""Every policy by its name."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.operating_point import OperatingGrid
from optimizer.policies.policy import Policy
from optimizer.policies.predictive import PredictivePolicy
from optimizer.policies.rivals.default import default
from optimizer.policies.rivals.static_best import static_best
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.revenue import Targets

__all__ = ["POLICY_NAMES", "SWEEPING", "OfflineSweep", "make_policy"]

_ONLINE: dict[str, Callable[[OperatingGrid], Policy]] = {
    "boulton": PredictivePolicy,
    "default": default,
}
_OFFLINE: dict[str, Callable[[OperatingGrid, Targets, OfflineSweep], Policy]] = {
    "static-best": static_best,
}
POLICY_NAMES: tuple[str, ...] = ("boulton", "default", "static-best")
SWEEPING: tuple[str, ...] = tuple(_OFFLINE)
"""Those that tune offline and so cannot be made without a sweep."""


def make_policy(name: str, grid: OperatingGrid, targets: Targets, sweep: OfflineSweep | None) -> Policy:
    """Return a fresh policy.

    Args:
        name: one of `POLICY_NAMES`.
        grid: the legal settings.
        targets: what those that tune offline tune for.
        sweep: what those that tune offline may measure; the others do not look at it.

    Raises:
        ValueError: no policy has that name, or it needs a sweep and there is none.
    """
    if name in _ONLINE:
        return _ONLINE[name](grid)
    if name not in _OFFLINE:
        raise ValueError(f"no policy {name!r}; there are {', '.join(POLICY_NAMES)}")
    if sweep is None:
        raise ValueError(f"policy {name} tunes offline and needs a sweep of the card; give a GPU profile")
    return _OFFLINE[name](grid, targets, sweep)
