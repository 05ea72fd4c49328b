"""How suddenly traffic grows, from window to window."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 60
_LEAST = 1.0
_MOST = 20.0
_LEAST_IMAGES = 5.0


class SurgeModel:
    """How many times its expected rate the traffic has reached, more than once, in the last `_REMEMBERED` windows.

    One surge proves nothing, and to be ready for it all the time costs more than to lose its first moments.
    What happened twice will happen again.
    """

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, images: int, expected_images: float) -> None:
        """Learn from a window: what came, and what was expected at most."""
        self._ratios.append(images / max(_LEAST_IMAGES, expected_images))

    @property
    def headroom(self) -> float:
        """How many times the load the capacity should be."""
        if len(self._ratios) < 2:
            return _LEAST
        return min(_MOST, max(_LEAST, sorted(self._ratios)[-2]))
