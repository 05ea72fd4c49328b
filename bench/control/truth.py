"""Whether a card was given back, by the rack's own account: no NVML call, and nothing of what is tested."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.control.scene import Scene

_POLL_S = 0.001
STAYS_S = 0.5
"""How long a card that was given back is watched: a setting under way must not arrive afterwards."""


def await_default(scene: Scene, card: int, since_s: float, limit_s: float) -> float | None:
    """Return how long after `since_s` a card was given back for good; None when it was not in time.

    A card that is set again within `STAYS_S` was not given back.
    """
    while (now_s := time.monotonic()) - since_s <= limit_s:
        if is_default(scene, card):
            if _stays(scene, card):
                return now_s - since_s
        else:
            time.sleep(_POLL_S)
    return None


def is_default(scene: Scene, card: int) -> bool:
    """Whether nothing is changed on a card."""
    return scene.rack.card(card).is_default


def await_true(condition: Callable[[], bool], limit_s: float, poll_s: float = _POLL_S) -> bool:
    """Wait for a condition; return whether it came true in time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(poll_s)
    return True


def _stays(scene: Scene, card: int) -> bool:
    end_s = time.monotonic() + STAYS_S
    while time.monotonic() < end_s:
        if not is_default(scene, card):
            return False
        time.sleep(_POLL_S)
    return True
