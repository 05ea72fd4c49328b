"""A queue that keeps batches so large that the power limit slows them, and what may end that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from optimizer.revenue import late_images, settled_images
from optimizer.telemetry import EventReason, Window

_WINDOWS, _STEPS = 2, 3
_MOST_LATE = 0.8


class Jam:
    """Counts the windows of a jam."""

    def __init__(self) -> None:
        self._windows = 0

    def observe(self, window: Window) -> None:
        """Take in a window."""
        self._windows = self._windows + 1 if _is_jammed(window) else 0

    def limit(self, images: int, limits: Sequence[int]) -> int:
        """Return a batch limit as it is; in a jam a smaller legal one, which may run at a higher clock."""
        halvings = self._windows // _WINDOWS % _STEPS
        return limits[max(0, bisect_right(limits, images >> halvings) - 1)] if halvings else images


def _is_jammed(window: Window) -> bool:
    """Whether nearly all are late behind a queue, in batches so large that the power limit slows them down.

    The queue keeps the batches large, and the slow batches the queue: that does not end by itself.
    """
    traffic, capped = window.traffic, EventReason.SW_POWER_CAP in window.device.event_reasons
    most_late = late_images(traffic) > _MOST_LATE * settled_images(traffic)
    return capped and most_late and traffic.queued > window.point.batch_limit // 2
