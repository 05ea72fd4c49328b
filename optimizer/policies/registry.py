"""Every policy by its name."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Policy
from optimizer.policies.rivals.batchdvfs import BatchDvfsPolicy
from optimizer.policies.rivals.bayesian import BayesianPolicy
from optimizer.policies.rivals.clipper import ClipperPolicy
from optimizer.policies.rivals.default import default
from optimizer.policies.rivals.gpoeo import GpoeoPolicy
from optimizer.policies.rivals.joule_point import joule_point
from optimizer.policies.rivals.morak import MorakPolicy
from optimizer.policies.rivals.mu_serve import MuServePolicy
from optimizer.policies.rivals.static_best import static_best
from optimizer.policies.rivals.sweep import OfflineSweep
from optimizer.policies.rivals.throttllem import ThrottllemPolicy
from optimizer.revenue import Targets

__all__ = ["POLICY_NAMES", "SWEEPING", "OfflineSweep", "make_policy"]

POLICY_NAMES: tuple[str, ...] = (
    "boulton",
    "default",
    "static-best",
    "joule-point",
    "clipper",
    "batchdvfs",
    "morak",
    "mu-serve",
    "throttllem",
    "gpoeo",
    "bayesian",
)
_ONLINE: dict[str, Callable[[OperatingGrid], Policy]] = {
    "boulton": BoultonPolicy,
    "default": default,
    "clipper": ClipperPolicy,
    "mu-serve": MuServePolicy,
    "bayesian": BayesianPolicy,
}
_CAPPED: dict[str, Callable[[OperatingGrid, float | None], Policy]] = {
    "batchdvfs": BatchDvfsPolicy,
    "morak": MorakPolicy,
}
_OFFLINE: dict[str, Callable[[OperatingGrid, Targets, OfflineSweep], Policy]] = {
    "static-best": static_best,
    "joule-point": joule_point,
    "throttllem": ThrottllemPolicy,
    "gpoeo": GpoeoPolicy,
}
SWEEPING: tuple[str, ...] = tuple(_OFFLINE)
"""Those that tune offline, or know an offline model, and so cannot be made without a sweep."""


def make_policy(name: str, grid: OperatingGrid, targets: Targets, sweep: OfflineSweep | None) -> Policy:
    """Return a fresh policy.

    Args:
        name: one of `POLICY_NAMES`.
        grid: the legal settings.
        targets: what those that tune offline tune for.
        sweep: what those that tune offline may measure. Of the others, those that obey a power cap take the
            board's limit from it, and the rest do not look at it.

    Raises:
        ValueError: no policy has that name, or it needs a sweep and there is none.
        ModuleNotFoundError: it needs a package that is not installed.
    """
    if name in _ONLINE:
        return _ONLINE[name](grid)
    if name in _CAPPED:
        return _CAPPED[name](grid, None if sweep is None else sweep.power_limit_w)
    if name not in _OFFLINE:
        raise ValueError(f"no policy {name!r}; there are {', '.join(POLICY_NAMES)}")
    if sweep is None:
        raise ValueError(f"policy {name} tunes offline and needs a sweep of the card; give a GPU profile")
    return _OFFLINE[name](grid, targets, sweep)
