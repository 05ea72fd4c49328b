"""What to watch between two decisions, and a gauge that tells a surge of arrivals from chance."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tripwire:
    """When to sound the alarm: whichever comes first.

    Args:
        queued_images: as soon as more than so many images wait.
        rate_per_s: as soon as arrivals outrun so many images a second ...
        burst_images: ... by more than so many images.
    """

    queued_images: int
    rate_per_s: float = math.inf
    burst_images: float = math.inf

    def __str__(self) -> str:
        """Read as `once more than 40 images wait, or 9 more come than 400 a second`."""
        queue = f"once more than {self.queued_images} images wait"
        if math.isinf(self.burst_images):
            return queue
        return f"{queue}, or {self.burst_images:.0f} more come than {self.rate_per_s:.0f} a second"


class SurgeGauge:
    """A leaky bucket: every image raises its level, time lowers it at the wire's rate, never below empty.

    A queue tells that the server is too slow only once it is; this tells within a few arrivals that more
    come than the setting was chosen for. It is the one-sided cumulative sum (CUSUM) of Page, "Continuous
    inspection schemes", Biometrika 1954, for the rate of a Poisson process.
    """

    __slots__ = ("_burst_images", "_level_images", "_rate_per_s", "_seen_s")

    def __init__(self) -> None:
        self._seen_s = self._level_images = 0.0
        self.disarm()

    def arm(self, wire: Tripwire) -> None:
        """Watch from now on; what came before counts on."""
        self._burst_images = wire.burst_images
        self._rate_per_s = wire.rate_per_s if math.isfinite(wire.rate_per_s) else 0.0
        if not math.isfinite(wire.burst_images):
            self.disarm()

    def disarm(self) -> None:
        """Watch no more."""
        self._rate_per_s, self._burst_images, self._level_images = 0.0, math.inf, 0.0

    def arrive(self, images: int, now_s: float) -> bool:
        """Count images that arrive at a time, never earlier than those before; True when that is a surge."""
        level = self._level_images - (now_s - self._seen_s) * self._rate_per_s
        self._level_images = level = (level if level > 0.0 else 0.0) + images
        self._seen_s = now_s
        return level > self._burst_images


def surge_wire(queued_images: int, expected_per_s: float, bearable_per_s: float, scale: float) -> Tripwire:
    """Return a wire that chance trips once in a hundred seconds, and a rate beyond the bearable soon.

    The bucket leaks at the rate between the two that tells them apart soonest. Its level then exceeds h by
    chance with a probability of exp(-theta h), where exp(theta) - 1 = theta * leak / expected; theta is
    approximated from below.

    Args:
        queued_images: passed on.
        expected_per_s: images a second that may well come.
        bearable_per_s: images a second that the setting can still serve in time. Too near to what is
            expected, the two cannot be told apart in time: then only the queue is watched.
        scale: of the burst; 1 for images that come one by one.
    """
    if expected_per_s <= 0.0 or bearable_per_s < _DISTINCT * expected_per_s:
        return Tripwire(queued_images)
    ratio = bearable_per_s / expected_per_s
    leak_per_s = (bearable_per_s - expected_per_s) / math.log(ratio)
    rise = leak_per_s / expected_per_s - 1.0
    theta = 2.0 * rise / (1.0 + 2.0 / 3.0 * rise)
    chances = max(math.e, expected_per_s * _CALM_S)
    return Tripwire(queued_images, leak_per_s, scale * math.log(chances) / theta)


_DISTINCT = 1.2
_CALM_S = 100.0
